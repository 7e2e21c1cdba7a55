"""The common case, fast: layers that grow, below their windows, and are described by their keys and values alone.

A decoding loop flattens and rebuilds its cache at each step. What is here takes the same decisions as `writing` and
`plans`, but once for each layer class instead of once for each attribute. Where a layer differs from what its class
usually is, it returns None, and the careful path is taken. It never runs under dynamo, which would trace all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from kvconform import probes
from kvconform.context import LayerLeaf
from kvconform.layers.layer_kinds import model_of
from kvconform.learned import PATTERNS, LayerModel
from kvconform.origins import COUNTERS, TENSORS_OF_A_LAYER, derived, length_of

__all__ = ["Maker", "flatten_layers", "maker_of", "unflatten_layers"]

_CODES = ("D", "W")
_TYPED = frozenset({"dtype", "device"})


@dataclass(frozen=True)
class _Pattern:
    """What an instance of a layer class must look like if its keys and values are to describe it completely.

    Attributes:
        code: letters of its code.
        config: the attribute with the number in its code.
        size: how many attributes it has.
        typed: whether it keeps the dtype and the device of its tensors.
        counter: its counter.
        counted: the same, if a counted cache has it as a leaf.
        constants: attributes and the value each must have.
        window: its window as a tensor.
    """

    code: str
    config: str | None
    size: int
    typed: bool
    counter: str | None
    counted: str | None
    constants: tuple[tuple[str, Any], ...]
    window: str | None


_Code = str | tuple[str, str]
"""The code of a layer, with the name of its counter if that is a leaf."""

_CONTEXTS: dict[tuple[_Code, ...], tuple[str, ...]] = {}


def flatten_layers(  # noqa: C901, PLR0911
    layers: Iterable[Any], *, counted: bool = False
) -> tuple[list[Any], list[str]] | None:
    """Leaves and context of these layers, or None if keys and values do not describe one of them.

    If `counted`, a layer that counts the tokens of a window has its counter as a third leaf, at every length.
    """
    # One long loop on purpose, which looks a class up once for layers of one class in a row: a call for each layer
    # would cost a tenth of the time.
    leaves: list[Any] = []
    codes: list[_Code] = []
    last: type | None = None
    pattern: Any = None
    tensor = torch.Tensor
    for layer in layers:
        if type(layer) is not last:
            last = type(layer)
            pattern = PATTERNS[last] if last in PATTERNS else _learn(last)
            if pattern is None:
                return None
            size, typed, constants, config = pattern.size, pattern.typed, pattern.constants, pattern.config
            counter = pattern.counted if counted else None
        state = layer.__dict__
        try:
            keys, values = state["keys"], state["values"]
            if len(state) != size or not isinstance(keys, tensor) or not isinstance(values, tensor):
                return None
            if typed and (state["dtype"] is not keys.dtype or state["device"] != keys.device):
                return None
            for name, value in constants:
                if state[name] is not value:
                    return None
            if config is None:
                codes.append(pattern.code)
            elif counter is not None and type(state[counter]) is int and _is_of_one_device(state, pattern, keys):
                codes.append((f"{pattern.code}{state[config]}", counter))
                leaves += (keys, values, state[counter])
                continue
            elif counter is None and _is_below_window(state, pattern, keys):
                codes.append(f"{pattern.code}{state[config]}")
            else:
                return None
        except KeyError:
            # As many attributes as the pattern, but others.
            return None
        leaves += (keys, values)
    return leaves, list(_context(tuple(codes)))


def _is_below_window(state: dict[str, Any], pattern: _Pattern, keys: torch.Tensor) -> bool:
    if pattern.counter is not None:
        count = state[pattern.counter]
        # A symbol is left to the careful path, which asks whether equality is proved and adds no guard.
        if type(count) is not int or count != length_of(keys):
            return False
    return _is_of_one_device(state, pattern, keys)


def _is_of_one_device(state: dict[str, Any], pattern: _Pattern, keys: torch.Tensor) -> bool:
    if pattern.window is None:
        return True
    window = state[pattern.window]
    return isinstance(window, torch.Tensor) and window.device == keys.device


def _context(codes: tuple[_Code, ...]) -> tuple[str, ...]:
    found = _CONTEXTS.get(codes)
    if found is None:
        layers = [(one, ()) if isinstance(one, str) else (one[0], one[1:]) for one in codes]
        found = tuple(
            LayerLeaf.text(kind, code, i)
            for i, (code, counters) in enumerate(layers)
            for kind in ("key", "value", *counters)
        )
        _CONTEXTS[codes] = found
    return found


def _learn(cls: type) -> _Pattern | None:
    model = model_of(cls)
    pattern = _pattern(model) if model.code in _CODES and model.ready and not probes.slots(cls) else None
    PATTERNS[cls] = pattern
    return pattern


def _pattern(model: LayerModel) -> _Pattern | None:
    explained = {*TENSORS_OF_A_LAYER, *_TYPED, *COUNTERS, model.config, *(name for name, _ in model.constants)}
    counters = [name for name in model.ready if name in COUNTERS]
    rest = [name for name in model.ready if name not in explained]
    if (
        model.ready.keys() & _TYPED not in (set(), _TYPED)
        or len(counters) > 1
        or rest not in ([], ["_sliding_window_tensor"])
    ):
        # A release has added attributes that this path does not know: the careful path handles any attribute.
        return None
    counter = counters[0] if counters else None
    return _Pattern(
        code=model.code,
        config=model.config,
        size=len(model.ready),
        typed=model.ready.keys() >= _TYPED,
        counter=counter,
        counted=counter if model.counts_a_window else None,
        constants=model.constants,
        window=rest[0] if rest else None,
    )


# ---------------------------------------------------------------------------------------------- reading


class Maker(NamedTuple):
    """How one layer is rebuilt from its keys and values.

    Attributes:
        cls: its class.
        template: its attributes, those that do not follow from the tensors filled in.
        typed: whether it keeps the dtype and the device of its tensors.
        derived: its other attributes that follow from the tensors.
    """

    cls: type
    template: dict[str, Any]
    typed: bool
    derived: tuple[str, ...]


def maker_of(cls: type, constants: dict[str, Any], derived_names: Iterable[str]) -> Maker:
    """A maker for layers of class `cls` with these attributes, and these that follow from the tensors."""
    names = tuple(derived_names)
    typed = _TYPED.issubset(names)
    template = {**dict.fromkeys(TENSORS_OF_A_LAYER), **constants, **dict.fromkeys(names)}
    return Maker(cls, template, typed, tuple(name for name in names if not (typed and name in _TYPED)))


def unflatten_layers(makers: list[Maker], leaves: list[Any]) -> list[Any] | None:
    """The layers with these leaves, two each, or None if one is no tensor, since tree_map may put anything there."""
    layers = []
    new, tensor = object.__new__, torch.Tensor
    for (cls, template, typed, names), keys, values in zip(makers, leaves[::2], leaves[1::2], strict=True):
        if not isinstance(keys, tensor):
            return None
        state = template.copy()
        state["keys"] = keys
        state["values"] = values
        if typed:
            state["dtype"] = keys.dtype
            state["device"] = keys.device
        for name in names:
            state[name] = length_of(keys) if name in COUNTERS else derived(name, state, keys)
        layer: Any = new(cls)
        layer.__dict__ = state
        layers.append(layer)
    return layers
