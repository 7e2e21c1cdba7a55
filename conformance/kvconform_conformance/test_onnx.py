"""Onnx (opt-in): `torch.onnx.export(dynamo=True)` of modules with a cache in and out, run by onnxruntime.

The graph's inputs are the leaves of the arguments in the order of the registration, its outputs those of the result, so
a registration whose leaves are in another order than the exporter's is seen here.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree

from kvconform.checks import shapes, trees
from kvconform.checks.caches import Example, examples
from kvconform.checks.errors import ExpectationError, expect, expect_equal
from kvconform.checks.modules import UpdateCache, stored
from kvconform.checks.needs import Need, cache_class, has
from kvconform.export.runtimes import to_onnx
from kvconform_conformance.examples.caches import by_name, step_inputs
from kvconform_conformance.examples.generation import Generating
from kvconform_conformance.examples.models import DECODERS, TinyModel, tokens
from kvconform_conformance.examples.runtimes import RUN_ELSEWHERE, expect_same_tokens_in
from kvconform_conformance.runner.needs import needs
from kvconform_conformance.runner.subjects import Subject
from kvconform_conformance.test_recipe import Gallery, _gallery_cache

TOLERANCE = 1e-4
PROMPT = 6
LONG_WINDOW = 16
Arguments = Callable[[int, int], tuple[Any, ...]]


def _takes_dynamic_shapes() -> bool:
    return {"dynamo", "dynamic_shapes"} <= set(inspect.signature(torch.onnx.export).parameters)


pytestmark = needs(
    has("onnx:ModelProto"),
    has("onnxscript:ir"),
    has("onnxruntime:InferenceSession"),
    Need(_takes_dynamic_shapes, "torch.onnx.export of this release takes no dynamo or no dynamic_shapes"),
)
_MISTRAL = next(tiny for tiny in DECODERS if tiny.name == "mistral")


def _mistral(name: str, about: str, window: int) -> TinyModel:
    return replace(_MISTRAL, name=name, about=about, settings={**_MISTRAL.settings, "sliding_window": window})


DECODED = (
    DECODERS[0],
    _mistral("mistral-below", "window 16, below it", LONG_WINDOW),
    _mistral("mistral-past", "window 4, past it", 4),
)


class DecodeStep(torch.nn.Module):
    """A causal model with the cache as input and output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, cache: Any, position: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """One token at `position`, which attends to everything that the cache holds and to itself.

        The mask is given: transformers makes its masks with vmap, which torch before 2.9 cannot export.
        """
        mask = torch.zeros((1, 1, 1, stored(cache)[0][0].shape[2] + 1))
        output = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=position.unsqueeze(0),
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits, output.past_key_values


@pytest.mark.parametrize("tiny", DECODED, ids=lambda tiny: tiny.name)
def test_decode_step(registered: object, tiny: TinyModel, tmp_path: Path) -> None:
    """A tiny model's decode step, batch and length dynamic: onnxruntime equals eager at two unseen shapes."""
    model = tiny.build()
    trees.expect_registered(tiny.prefill(model, 2, PROMPT), tiny.name)

    def build(batch: int, length: int) -> Any:
        # The strides of a slice of a longer tensor would become guards of the program.
        cache = tiny.prefill(model, batch, length)
        return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.contiguous(), cache)

    def args(batch: int, length: int) -> tuple[Any, ...]:
        return tokens(batch, 1, seed=1), build(batch, length), torch.tensor([length])

    longest = LONG_WINDOW - 3 if tiny.name == "mistral-below" else 1024
    dims = shapes.named(longest)
    asked: Any = ({0: dims.batch}, shapes.dynamic_shapes(build, 2, PROMPT, dims), {})
    _expect_onnx(DecodeStep(model), args, asked, ((2, PROMPT), (3, PROMPT + 3), (5, PROMPT + 2)), tmp_path, tiny.name)


def test_gallery(registered: object, tmp_path: Path) -> None:
    """The gallery's module, its cache only read, with dynamic batch and length: onnxruntime equals eager."""
    trees.expect_registered(_gallery_cache(3, 5))
    dims = shapes.named()
    other = torch.export.Dim("other", min=2, max=64)
    asked: Any = ({0: dims.batch, 2: other}, shapes.dynamic_shapes(_gallery_cache, 3, 5, dims))

    def args(batch: int, length: int) -> tuple[Any, ...]:
        return torch.ones(batch, 8, length + 2, 1), _gallery_cache(batch, length)

    _expect_onnx(Gallery(), args, asked, ((3, 5), (4, 11), (2, 7)), tmp_path, "the gallery")


@pytest.mark.parametrize(
    "example", [by_name("dynamic-two-layers"), by_name("encoder-decoder")], ids=lambda example: example.name
)
def test_cache_step(registered: object, example: Example, tmp_path: Path) -> None:
    """A step that appends to a cache and returns it, batch and length dynamic: onnxruntime equals eager."""
    cache = example.build()
    trees.expect_registered(cache, example.where)
    dims = shapes.named(example.longest)
    asked: Any = ({0: dims.batch}, shapes.dynamic_shapes(example.build, 2, example.length, dims), {})
    tried = ((2, example.length), (3, example.length + 2), (5, example.length + 4))
    _expect_onnx(UpdateCache.like(cache), _arguments(example), asked, tried, tmp_path, example.where)


@needs(cache_class("StaticCache"))
@pytest.mark.parametrize("example", examples("static-below"), ids=lambda example: example.name)
def test_static_cache(registered: object, example: Example, tmp_path: Path) -> None:
    """A step that writes to a StaticCache in place and returns it, its shapes fixed: onnxruntime equals eager."""
    cache = example.build()
    trees.expect_registered(cache, example.where)
    tried = ((2, example.length), (2, example.length + 2))
    _expect_onnx(UpdateCache.like(cache), _arguments(example), None, tried, tmp_path, example.where)


@pytest.mark.parametrize("generating", RUN_ELSEWHERE, ids=lambda generating: generating.name)
def test_as_the_model(subject: Subject, generating: Generating, tmp_path: Path) -> None:
    """Programs of one call, as ONNX files in onnxruntime, generate the 64 tokens of `model.generate()`.

    At two batches, padded, past a window. Inputs and outputs have the names that users of onnxruntime expect.
    """
    converted = expect_same_tokens_in(to_onnx, subject, generating, tmp_path)
    session = _session(tmp_path / "decode-1.onnx", generating.name)
    given, got = ([one.name for one in values] for values in (session.get_inputs(), session.get_outputs()))
    expect_equal("the first input", given[0], converted.plan.ids, generating.name)
    expect_equal("the first output", got[0], "logits", generating.name)
    caches = [name.removeprefix(f"{converted.plan.cache}.") for name in given if name.startswith(converted.plan.cache)]
    expect_equal("the cache that goes in", caches, [name.removeprefix("present.") for name in got[1:]], generating.name)
    expected = [f"{layer}.{what}" for layer in (0, 1) for what in ("key", "value")]
    expect_equal("keys and values", [name for name in caches if "length" not in name], expected, generating.name)


def _arguments(example: Example) -> Arguments:
    return lambda batch, length: step_inputs(example.build(batch, length), batch)


def _expect_onnx(  # noqa: PLR0917 - a builder or check of many settings
    module: torch.nn.Module,
    args: Arguments,
    asked: Any,
    tried: tuple[tuple[int, int], ...],
    folder: Path,
    where: str,
) -> None:
    """Export with the first of the `(batch, length)` pairs, run with every one."""
    __tracebackhide__ = True
    path = folder / "model.onnx"
    _export(module, args(*tried[0]), asked, path, where)
    session = _session(path, where)
    for batch, length in tried:
        _expect_equals_eager(session, module, args(batch, length), f"{where}; batch {batch}, length {length}")


def _export(module: torch.nn.Module, args: tuple[Any, ...], asked: Any, path: Path, where: str) -> None:
    """Export a copy of the inputs; whatever the exporter raises is a failed expectation."""
    __tracebackhide__ = True
    # Some releases fall back to the exporter without dynamo, which is another question; later ones have no such option.
    more: Any = {"fallback": False} if "fallback" in inspect.signature(torch.onnx.export).parameters else {}
    try:
        program: Any = torch.onnx.export(
            module, copy.deepcopy(args), dynamo=True, dynamic_shapes=asked, verbose=False, **more
        )
        # Typed as optional, since the exporter without dynamo returns None; here None is an error like any other.
        program.save(str(path))
    except Exception as error:
        raise ExpectationError(f"torch.onnx.export raised {_short(error)}, expected a program [{where}]") from error


def _session(path: Path, where: str) -> Any:
    __tracebackhide__ = True
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExpectationError(f"onnxruntime refused the model: {_short(error)} [{where}]") from error


def _expect_equals_eager(session: Any, module: torch.nn.Module, args: tuple[Any, ...], where: str) -> None:
    __tracebackhide__ = True
    leaves = pytree.tree_leaves(copy.deepcopy(args))
    names = [value.name for value in session.get_inputs()]
    expect_equal("the number of the graph's inputs", len(names), len(leaves), f"{where}; inputs {names}")
    try:
        got = session.run(None, {name: _array(leaf) for name, leaf in zip(names, leaves, strict=True)})
    except Exception as error:
        raise ExpectationError(f"onnxruntime raised {_short(error)}, expected a result [{where}]") from error
    expected = pytree.tree_leaves(module(*args))
    expect_equal("the number of the graph's outputs", len(got), len(expected), where)
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        _expect_close(index, torch.as_tensor(one), torch.as_tensor(other), where)


def _expect_close(index: int, got: torch.Tensor, expected: torch.Tensor, where: str) -> None:
    __tracebackhide__ = True
    expect_equal(f"the shape of output {index}", list(got.shape), list(expected.shape), where)
    worst = (got.double() - expected.double()).abs().max().item() if got.numel() else 0.0
    expect(worst <= TOLERANCE, f"output {index} differs from eager by {worst:.3g}, expected at most {TOLERANCE}", where)


def _array(leaf: Any) -> Any:
    """A leaf as onnxruntime takes it: a counter is a scalar of int64."""
    return leaf.detach().numpy() if isinstance(leaf, torch.Tensor) else torch.tensor(leaf).numpy()


def _short(error: BaseException) -> str:
    """The cause of an error in one line: the exporter wraps it in errors that hold advice and reports."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text[:600]}"
