"""A decode step that is compiled once: what `torch.compile` is for, and what a cache that came back wrong undoes."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from kvconform.checks import trees
from kvconform.checks.errors import ExpectationError, expect
from kvconform.checks.needs import lookup
from kvconform_conformance.examples.models import BY_NAME
from kvconform_conformance.examples.steps import PROMPT
from kvconform_conformance.examples.tiny import TinyModel, tokens

__all__ = ["COMPILED", "DECODED", "expect_compiles_once"]

DECODED = 32
_ROWS, _MAXIMUM = 2, PROMPT + DECODED + 2
COMPILED = (replace(BY_NAME["llama"], settings={**BY_NAME["llama"].settings, "num_hidden_layers": 1}),)


class CompiledStep(torch.nn.Module):
    """One token onto a StaticCache, at a position that is given: read from the cache it would be a constant."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.places = "cache_position" in inspect.signature(model.forward).parameters

    def forward(self, input_ids: torch.Tensor, cache: Any, position: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Logits and the cache."""
        place: dict[str, Any] = {"position_ids": position.unsqueeze(0)}
        if self.places:
            place["cache_position"] = position
        output = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True, **place)
        return output.logits, output.past_key_values


def expect_compiles_once(tiny: TinyModel) -> None:
    """Decode compiled and eagerly, beside each other, and count how often dynamo hands over a graph.

    Args:
        tiny: a model without windows.
    """
    __tracebackhide__ = True
    graphs: list[Any] = []

    def counted(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = tiny.build()
    ours, theirs = (_prefilled(tiny, model) for _ in range(2))
    trees.expect_registered(ours, tiny.name)
    module = CompiledStep(model)
    torch._dynamo.reset()
    with _modules_as_before():
        compiled = torch.compile(module, backend=counted, fullgraph=True, dynamic=False)
        for number in range(DECODED):
            where = f"{tiny.name}, step {number + 1} of {DECODED}"
            ours = trees.round_trip(ours, where)
            ids, position = tokens(_ROWS, 1, seed=number), torch.tensor([PROMPT + number])
            with torch.no_grad():
                expected, theirs = module(ids, theirs, position)
                got, ours = _called(compiled, (ids, ours, position), where)
            apart = float((got - expected).abs().max())
            expect(apart <= 1e-5, f"logits differ by {apart:.3g}, expected at most 1e-05", where)
            expect(len(graphs) == 1, f"{len(graphs)} compilations, expected 1", where)


@contextlib.contextmanager
def _modules_as_before() -> Iterator[None]:
    """Forget what was compiled, and that torch now tags every module that is made.

    It begins to with the first torch.compile of a process and never ends it; a strict export of torch 2.15 that makes a
    module, as the caches of transformers were until 4.49, is refused from then on.
    """
    before = dict(vars(torch.nn.Module))
    try:
        yield
    finally:
        torch._dynamo.reset()
        now = dict(vars(torch.nn.Module))
        for name in now.keys() - before.keys():
            delattr(torch.nn.Module, name)
        for name, value in before.items():
            if now.get(name) is not value:
                setattr(torch.nn.Module, name, value)


def _called(compiled: Any, args: tuple[Any, ...], where: str) -> Any:
    try:
        return compiled(*args)
    except Exception as error:
        text = " ".join(str(error).split())[:600]
        raise ExpectationError(f"torch.compile raised {type(error).__name__}: {text} [{where}]") from error


def _prefilled(tiny: TinyModel, model: Any) -> Any:
    """A StaticCache after a prompt; older releases want every size when it is made, newer ones ignore those."""
    sizes = {"max_batch_size": _ROWS, "device": torch.device("cpu"), "dtype": torch.float32}
    cls = lookup("transformers.cache_utils:StaticCache")
    cache = cls(config=model.config, max_cache_len=_MAXIMUM, **sizes)
    with torch.no_grad():
        return tiny.cache_of(model(**tiny.step(model, tokens(_ROWS, PROMPT), cache)))
