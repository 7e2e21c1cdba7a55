"""Sliding layers without a branch on their length, so that one exported program decodes at every length.

A sliding layer below its window and one past it take two paths in transformers: a slice that keeps the window, an `if`
on the counter, another offset of the mask. torch.export follows the one that the example takes and guards on it, so
that a decode step exported below a window of 8 is refused at length 8. The functions here compute the same numbers by
minimum, maximum and `index_select`. A slice would not do: torch then guards on its strides
("Guard failed: 8 + 8 * L == 8 - 8 * sym_max(0, L - 6) + 8 * L").

They are used while something is traced. The counter must be an input of the program below the window too
(`register_flattening_functions(counted=True)`), and torch must take dynamic ints, as 2.8 and later do.

Layers that grow until their window is full (DynamicSlidingWindowLayer, 4.56 and later) keep their last `window - 1`
tokens, as transformers does. Layers that are allocated (StaticSlidingWindowLayer, and in 4.54 to 4.56 the layers that
count) keep the last `window` tokens, in the order of their positions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from kvconform import probes
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH", "counter_of"]

_GROWING = ("DynamicSlidingWindowLayer",)
_ALLOCATED = ("StaticSlidingWindowLayer", "SlidingWindowLayer", "ChunkedSlidingLayer")
_PROBED_WINDOW = 8


def _classes(names: tuple[str, ...]) -> list[type]:
    """The layer classes of these names that have an `update` of their own and count in an int."""
    found = [cls for cls in map(probes.cache_class, names) if cls is not None and "update" in vars(cls)]
    return [cls for cls in found if counter_of(cls) is not None]


def counter_of(cls: type) -> str | None:
    """The attribute in which a sliding layer counts its tokens, as an int."""
    code = {name for base in cls.__mro__ for name in _names_set_by(vars(base).get("__init__"))}
    return next((name for name in ("cumulative_length_int", "cumulative_length") if name in code), None)


def _names_set_by(function: Any) -> tuple[str, ...]:
    return function.__code__.co_names if hasattr(function, "__code__") else ()


def _probe() -> Answer:
    if not probes.has_layers() or not (_classes(_GROWING) or _classes(_ALLOCATED)):
        return not_applicable("this release has no sliding layer that counts its tokens")
    if not probes.takes_dynamic_int():
        return not_applicable("this torch takes no dynamic int, which the counter of a sliding layer has to be")
    growing = _classes(_GROWING)
    if growing and not _asks_its_count(growing[0]) and _takes_all_lengths(growing[0]):
        return not_needed("one exported update of a sliding layer takes all lengths")
    return needed("an exported update of a sliding layer takes lengths on one side of its window only")


class _Count(int):
    """A count that remembers whether anything was decided by it, as torch.export does by a guard."""

    decided = 0

    def __add__(self, other: int) -> _Count:
        return _Count(int(self) + other)

    def __sub__(self, other: int) -> _Count:
        return _Count(int(self) - other)

    def _compare(self, answer: bool) -> bool:
        _Count.decided += 1
        return answer

    def __lt__(self, other: int) -> bool:
        return self._compare(int(self) < other)

    def __gt__(self, other: int) -> bool:
        return self._compare(int(self) > other)

    def __le__(self, other: int) -> bool:
        return self._compare(int(self) <= other)

    def __ge__(self, other: int) -> bool:
        return self._compare(int(self) >= other)


def _asks_its_count(cls: Any) -> bool:
    """Whether a layer that grows decides by its count how long a mask is. It costs no export to find that out."""
    layer, new = cls(sliding_window=_PROBED_WINDOW), torch.zeros(1, 1, 2, 1)
    layer.update(new, new)
    layer.cumulative_length = _Count(layer.cumulative_length)
    _Count.decided = 0
    # The argument is a length since 5.4, and the positions before.
    layer.get_mask_sizes(1 if "query_length" in probes.parameters_of(cls.get_mask_sizes) else torch.arange(2, 3))
    return bool(_Count.decided)


def _takes_all_lengths(cls: Any) -> bool:
    """Whether an update exported below a window is right past it."""

    class Update(torch.nn.Module):
        def forward(self, keys: torch.Tensor, new: torch.Tensor, count: int) -> torch.Tensor:
            layer = cls(sliding_window=_PROBED_WINDOW)
            layer.update(new, new)
            layer.keys, layer.values, layer.cumulative_length = keys, keys, count
            layer.update(new, new)
            kept: torch.Tensor = layer.keys
            return kept

    auto = torch.export.Dim.AUTO
    keys, new = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(Update(), (keys, new, 2), dynamic_shapes=({2: auto}, {}, auto), strict=False)
            kept = program.module()(torch.zeros(1, 1, _PROBED_WINDOW - 1, 1), new, 9)
        except Exception:  # noqa: BLE001 (whatever torch raises here, its answer is no)
            return False
    return bool(kept.shape[2] == _PROBED_WINDOW - 1)


# --------------------------------------------------------------------------------------------- layers that grow


def _grow(lazy_arguments: int) -> Callable[[Any], Any]:
    """What makes the `update` of layers that grow; `lazy_arguments` are those of `lazy_initialization`."""

    def make(native: Callable[..., Any]) -> Callable[..., Any]:
        def update(
            self: Any, key_states: torch.Tensor, value_states: torch.Tensor, *arguments: Any, **named: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if not is_traced(key_states) or getattr(self, "record_past", False):
                found: tuple[torch.Tensor, torch.Tensor] = native(self, key_states, value_states, *arguments, **named)
                return found
            if not _is_initialized(self):
                self.lazy_initialization(*(key_states, value_states)[:lazy_arguments])
            self.cumulative_length += key_states.shape[-2]
            keys = torch.cat([self.keys, key_states], dim=-2)
            values = torch.cat([self.values, value_states], dim=-2)
            # A minimum, since torch sees its lower bound. Of a difference with a maximum it does not, and torch 2.8
            # then guards on whether the length is 0 or 1.
            number = _minimum(keys.shape[-2], self.sliding_window - 1)
            kept = torch.arange(keys.shape[-2] - number, keys.shape[-2], device=keys.device)
            self.keys, self.values = keys.index_select(2, kept), values.index_select(2, kept)
            return keys, values

        return update

    return make


def _sizes_of_growing(native: Callable[..., Any]) -> Callable[..., Any]:
    """What makes the `get_mask_sizes` of layers that grow: what is held and where it begins, without a branch."""

    def get_mask_sizes(self: Any, query: Any) -> tuple[Any, Any]:
        if not _is_tracing(self, query) or getattr(self, "record_past", False):
            found: tuple[Any, Any] = native(self, query)
            return found
        held = self.keys.shape[-2] if _is_initialized(self) and self.keys.dim() > 1 else 0
        return held + _length(query), self.cumulative_length - held

    return get_mask_sizes


# ----------------------------------------------------------------------------------------- layers that are allocated


def _fill(counter: str, lazy_arguments: int) -> Callable[[Any], Any]:
    """What makes the `update` of layers that are allocated, which count in the attribute `counter`."""

    def make(native: Callable[..., Any]) -> Callable[..., Any]:
        def update(
            self: Any, key_states: torch.Tensor, value_states: torch.Tensor, *arguments: Any, **named: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if not is_traced(key_states):
                found: tuple[torch.Tensor, torch.Tensor] = native(self, key_states, value_states, *arguments, **named)
                return found
            if not _is_initialized(self):
                self.lazy_initialization(*(key_states, value_states)[:lazy_arguments])
            count, size, new = getattr(self, counter), self.max_cache_len, key_states.shape[-2]
            setattr(self, counter, count + new)
            _count_in_tensor(self, count, new)
            state = _Slots(size, _minimum(count, size), new, self.keys.device)
            # Counted from the token in slot 0: the first token that a query sees, and the first that is kept.
            gone = count - state.held
            visible = state.of(_maximum(count - size + 1, 0) - gone, size + new - 1)
            slots = state.of(_maximum(count + new - size, 0) - gone, size)
            keys = torch.cat([self.keys, key_states.to(self.keys.dtype)], dim=-2)
            values = torch.cat([self.values, value_states.to(self.values.dtype)], dim=-2)
            self.keys.copy_(keys.index_select(2, slots))
            self.values.copy_(values.index_select(2, slots))
            return keys.index_select(2, visible), values.index_select(2, visible)

        return update

    return make


class _Slots(NamedTuple):
    """The slots of an allocated layer, and new tokens after them.

    Attributes:
        size: how many slots there are.
        held: how many of them hold tokens.
        new: how many tokens come after them.
        device: of the layer.
    """

    size: int
    held: Any
    new: Any
    device: torch.device

    def of(self, first: Any, number: Any) -> torch.Tensor:
        """Where a number of tokens stand, from the token `first` on, counted from that in slot 0.

        Tokens that are not there yet stand in slots that hold nothing; a mask hides them.
        """
        token = torch.arange(number, device=self.device) + first
        is_new = (token >= self.held) & (token < self.held + self.new)
        return torch.where(is_new, token - self.held + self.size, token.clamp(max=self.size - 1))


def _count_in_tensor(layer: Any, count: Any, new: Any) -> None:
    """Since 5.4 a tensor counts too, as long as new tokens fit below the window."""
    counted = layer.cumulative_length if hasattr(layer, "cumulative_length_int") else None
    if isinstance(counted, torch.Tensor):
        fits = torch.arange(1, device=counted.device) + (count + new) <= layer.max_cache_len
        counted.add_((fits * new).reshape(counted.shape))


def _sizes_of_allocated(counter: str) -> Callable[[Any], Any]:
    """What makes the `get_mask_sizes` of layers that are allocated, which count in the attribute `counter`."""

    def make(native: Callable[..., Any]) -> Callable[..., Any]:
        def get_mask_sizes(self: Any, query: Any) -> tuple[Any, Any]:
            if not _is_tracing(self, query):
                found: tuple[Any, Any] = native(self, query)
                return found
            size = self.max_cache_len
            return size + _length(query) - 1, _maximum(getattr(self, counter) - size + 1, 0)

        return get_mask_sizes

    return make


def _minimum(one: Any, other: Any) -> Any:
    """The smaller of two numbers. Dynamo knows `torch.sym_min` of symbols alone, and those are ints to it."""
    return min(one, other) if isinstance(one, int) and isinstance(other, int) else torch.sym_min(one, other)


def _maximum(one: Any, other: Any) -> Any:
    return max(one, other) if isinstance(one, int) and isinstance(other, int) else torch.sym_max(one, other)


def _is_initialized(layer: Any) -> bool:
    """Whether a layer has its tensors; until 4.56 nothing but these says so."""
    return bool(getattr(layer, "is_initialized", layer.keys is not None))


def _length(query: Any) -> Any:
    """The argument of `get_mask_sizes` is a length since 5.4, and the positions, a tensor, before."""
    return query.shape[0] if isinstance(query, torch.Tensor) else query


def _is_tracing(layer: Any, query: Any) -> bool:
    return is_traced(*(tensor for tensor in (layer.keys, query) if isinstance(tensor, torch.Tensor)))


def _replacements() -> tuple[Replacement, ...]:
    found = []
    for cls in _classes(_GROWING):
        found += [
            Replacement(cls, "update", _grow(_lazy_arguments(cls))),
            Replacement(cls, "get_mask_sizes", _sizes_of_growing),
        ]
    for cls in _classes(_ALLOCATED):
        counter = str(counter_of(cls))
        found += [
            Replacement(cls, "update", _fill(counter, _lazy_arguments(cls))),
            Replacement(cls, "get_mask_sizes", _sizes_of_allocated(counter)),
        ]
    return tuple(found)


def _lazy_arguments(cls: Any) -> int:
    """How many tensors `lazy_initialization` takes: the keys, and since 5.0 the values."""
    return len(probes.parameters_of(cls.lazy_initialization)) - 1 if hasattr(cls, "lazy_initialization") else 0


PATCH = Patch(
    name="sliding-windows",
    replaces="update and get_mask_sizes of sliding layers in transformers.cache_utils (4.54 and later), while traced",
    why="they branch on the length, so that a program is good on one side of a window only",
    page="docs/sliding-windows.md",
    probe=_probe,
    replacements=_replacements,
)
