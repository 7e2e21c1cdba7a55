"""Rotary positions whose frequencies depend on how long a sequence is, computed without a branch while they are traced.

`dynamic_rope_update` (transformers 4.51 and later) asks whether `torch.max(position_ids) + 1` is more than a length. It
does so before the positions of a model with the rope type "dynamic" or, until 5.20, "longrope" (Phi-3, Phi-4 mini) are
computed. What positions hold is data, which torch.export does not follow. Both frequencies are computed here, and
`torch.where` chooses.

Since 5.21 longrope chooses so by itself, but keeps the long frequencies on the model where it computes them first: in a
trace that is a fake tensor, with which the model itself answers wrongly afterwards. Nothing is kept here.

The model keeps what it computed last, and a program keeps nothing: after a longer sequence, a model of the type
"dynamic" goes on with the frequencies of that one for all that are longer than it was trained for.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from kvconform.patches.of_models import in_loaded_modules, model_classes
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_UPDATES = {"dynamic": "dynamic_frequency_update", "longrope": "longrope_frequency_update"}
"""What the wrapper of `dynamic_rope_update` calls for each type."""
_ORIGINAL = "original_max_position_embeddings"


def _scaling() -> ModuleType | None:
    try:
        return importlib.import_module("transformers.modeling_rope_utils")
    except ModuleNotFoundError:
        return None


def _probe() -> Answer:
    decorate = getattr(_scaling(), "dynamic_rope_update", None)
    if decorate is None:
        return not_applicable("the rotary positions of this release ask no length")
    kinds = _updates(decorate(lambda *_: None))
    return needed(
        f"positions of the rope types {', '.join(kinds)} ask for a length, which is data, or keep what is traced"
    )


def _updates(forward: Any) -> dict[str, FunctionType]:
    """The functions that a decorated forward calls first, by the type they are for; none if it is not decorated."""
    while inspect.isfunction(forward):
        held = dict(zip(forward.__code__.co_freevars, forward.__closure__ or (), strict=False))
        found = {kind: held[name].cell_contents for kind, name in _UPDATES.items() if name in held}
        if found:
            return found
        # torch.no_grad stands around it.
        forward = getattr(forward, "__wrapped__", None)
    return {}


def _without_branch(original: Callable[..., Any]) -> Callable[..., Any]:
    kinds = tuple(_updates(original))
    positioned: Any = inspect.unwrap(original)

    @functools.wraps(original)
    def forward(self: Any, x: torch.Tensor, position_ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
        # Dynamo of torch 2.5 follows this function, and would stumble over what comes after.
        if torch.compiler.is_dynamo_compiling() or not is_traced(x, position_ids):
            return original(self, x, position_ids, *rest, **named)
        layer = named.get("layer_type", rest[0] if rest else None)
        asked = self.rope_type if layer is None else self.rope_type[layer]
        kind = next((one for one in kinds if one in asked), None)
        if kind is None:
            return original(self, x, position_ids, *rest, **named)
        length = torch.max(position_ids) + 1
        found = (_longrope if kind == "longrope" else _dynamic)(self, asked, layer, length, x.device)
        with torch.no_grad(), _frequencies(self, "inv_freq" if layer is None else f"{layer}_inv_freq", found):
            return positioned(self, x, position_ids, *rest, **named)

    return forward


@contextmanager
def _frequencies(module: Any, name: str, found: torch.Tensor) -> Iterator[None]:
    """Have a module hold other frequencies in a block; its buffer is the same one after it."""
    held = module._buffers[name]
    module._buffers[name] = found
    try:
        yield
    finally:
        module._buffers[name] = held


def _longrope(module: Any, kind: str, layer: str | None, length: torch.Tensor, device: torch.device) -> torch.Tensor:
    parameters = getattr(module.config, "rope_parameters", None) or {}
    told = parameters if layer is None else parameters[layer]
    limit = told.get(_ORIGINAL) or getattr(module.config, _ORIGINAL, module.config.max_position_embeddings)
    long = _computed(module, kind, layer, limit + 1, device)
    prefix = "" if layer is None else f"{layer}_"
    return torch.where(length > limit, long, getattr(module, f"{prefix}original_inv_freq").to(device))


def _dynamic(module: Any, kind: str, layer: str | None, length: torch.Tensor, device: torch.device) -> torch.Tensor:
    limit = module.original_max_seq_len
    # Releases that ask whether the length is past the limit are told so: at the limit both answers are the same.
    with _TakenForLonger():
        return _computed(module, kind, layer, torch.clamp(length, min=limit), device)


def _computed(module: Any, kind: str, layer: str | None, length: Any, device: torch.device) -> torch.Tensor:
    rope: Any = _scaling()
    more = {} if layer is None else {"layer_type": layer}
    frequencies: torch.Tensor = rope.ROPE_INIT_FUNCTIONS[kind](module.config, device, seq_len=length, **more)[0]
    return frequencies.to(device)


class _TakenForLonger(TorchFunctionMode):
    """The truth of a tensor is yes."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return True if func is torch.Tensor.__bool__ else func(*args, **(kwargs or {}))


def _of_module(module: ModuleType) -> tuple[Replacement, ...]:
    """The positions of a model's module that branch on a length."""
    return tuple(
        Replacement(cls, "forward", _without_branch)
        for cls in model_classes(module)
        if _updates(vars(cls).get("forward"))
    )


PATCH = Patch(
    name="rope-of-a-length",
    replaces="`forward` of rotary embeddings that ask how long a sequence is (4.51 and later), when traced",
    why="they ask positions for their largest, which is data that torch.export does not follow",
    page="docs/known-failures/rope-of-a-length.md",
    probe=_probe,
    replacements=lambda: in_loaded_modules(_of_module),
    of_module=_of_module,
)
