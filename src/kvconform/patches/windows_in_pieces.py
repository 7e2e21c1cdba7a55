"""A repair: several tokens at a time across the window of a preallocated sliding layer, transformers 4.53 to 4.56.

Such a layer keeps as many tokens as its window. When several new ones cross its end, 4.53 to 4.55 shift first and give
back what is kept then: the window of the last new token. The earlier ones attend to too little, and the logits of a
prompt in pieces are wrong. 4.56, whose layer counts its tokens, writes past its end and raises. Here the piece gets the
tokens that were kept and itself, as in 4.57; the mask, which these models make from `get_mask_sizes`, hides what a
query must not see.

Whether a piece crosses the window is asked of the positions. What is traced stays as it is: there they are data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kvconform import probes
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed
from kvconform.patches.sliding_windows import counter_of
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_LISTS, _LAYER = ("SlidingWindowCache", "HybridCache"), "SlidingWindowLayer"


def _classes() -> list[Any]:
    """The classes of these names that update a window themselves and say what they give back."""
    found = [probes.cache_class(name) for name in ((_LAYER,) if probes.has_layers() else _LISTS)]
    # In 4.57 the name stands for another class, which has neither of its own.
    return [cls for cls in found if cls is not None and {"update", "get_mask_sizes"} <= vars(cls).keys()]


def _probe() -> Answer:
    found = _classes()
    if not found:
        return not_applicable("this release has no sliding layer that is preallocated and finds its place by positions")
    try:
        sees_all = _sees_all(found[0])
    except IndexError:
        return needed("a sliding layer of this release raises when several tokens cross its window")
    if sees_all:
        return not_needed("a sliding layer of this release gives every token of a piece what it may see")
    return needed("a sliding layer of this release forgets what the first tokens of a piece still see")


def _sees_all(cls: Any) -> bool:
    """Whether the second of two pieces of 3 tokens, through a window of 4, gets the first token of all.

    Raises:
        IndexError: the release writes past the end of the layer, as 4.56 does.
    """
    # The tensors alone: the constructors ask for the configuration of a model.
    held, layer = [torch.zeros(1, 1, 4, 1), torch.zeros(1, 1, 4, 1)], object.__new__(cls)
    layer.max_cache_len = layer.sliding_window = 4
    if probes.has_layers():
        layer.keys, layer.values, layer.device = *held, held[0].device
        _count(layer, 0, counter_of(cls))
    else:
        layer.key_cache, layer.value_cache = [held[0]], [held[1]]
    index = () if probes.has_layers() else (0,)
    keys = held[0]
    for first in (0, 3):
        new = torch.arange(first + 1.0, first + 4).reshape(1, 1, 3, 1)
        keys, _ = layer.update(new, new, *index, {"cache_position": torch.arange(first, first + 3)})
    return bool((keys == 1).any())


def _crosses(position: Any, size: int) -> bool:
    """Whether several tokens after others cross the end of a window of this size."""
    if not isinstance(position, torch.Tensor) or position.is_meta or is_traced(position):
        # On the device meta a position has no number to ask for, and no attention could be wrong.
        return False
    count = position.shape[0]
    return count > 1 and int(position[0]) > 0 and int(position[0]) + count > size


def _whole(held: torch.Tensor, new: torch.Tensor, first: int) -> torch.Tensor:
    """The tokens that are held before `first`, and the new ones; the last of them are held from now on."""
    size = held.shape[2]
    found = torch.cat([held[:, :, : min(first, size)], new.to(held.device, held.dtype)], dim=2)
    held.copy_(found[:, :, -size:])
    return found


def _update_of_layer(counter: str | None) -> Callable[[Any], Any]:
    """What makes the `update` of a layer, which counts its tokens in the attribute `counter`, if in any."""

    def make(native: Callable[..., Any]) -> Callable[..., Any]:
        def update(
            self: Any, key_states: torch.Tensor, value_states: torch.Tensor, cache_kwargs: dict[str, Any] | None = None
        ) -> Any:
            position: Any = (cache_kwargs or {}).get("cache_position")
            if is_traced(key_states) or not _crosses(position, self.max_cache_len):
                return native(self, key_states, value_states, cache_kwargs)
            first = int(position[0])
            _count(self, first + position.shape[0], counter)
            return _whole(self.keys, key_states, first), _whole(self.values, value_states, first)

        return update

    return make


def _count(layer: Any, number: int, counter: str | None) -> None:
    if counter is not None:
        setattr(layer, counter, number)


def _update_of_lists(native: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `update` of a cache of two lists."""

    def update(
        self: Any,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        cache_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        position: Any = (cache_kwargs or {}).get("cache_position")
        slides = _slides(self, layer_idx)
        if is_traced(key_states) or not slides or not _crosses(position, self.key_cache[layer_idx].shape[2]):
            return native(self, key_states, value_states, layer_idx, cache_kwargs)
        first = int(position[0])
        keys, values = self.key_cache[layer_idx], self.value_cache[layer_idx]
        return _whole(keys, key_states, first), _whole(values, value_states, first)

    return update


def _slides(cache: Any, index: int) -> bool:
    return bool(cache.is_sliding[index]) if hasattr(cache, "is_sliding") else True


def _sizes(native: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `get_mask_sizes`, of the positions and, in a cache of two lists, a layer."""

    def get_mask_sizes(self: Any, cache_position: torch.Tensor, *layer: int) -> tuple[Any, Any]:
        size = self.key_cache[layer[0]].shape[2] if layer else self.max_cache_len
        if (layer and not _slides(self, layer[0])) or not _crosses(cache_position, size):
            found: tuple[Any, Any] = native(self, cache_position, *layer)
            return found
        first = int(cache_position[0])
        return min(first, size) + cache_position.shape[0], max(first - size, 0)

    return get_mask_sizes


def _replacements() -> tuple[Replacement, ...]:
    return tuple(
        replacement
        for cls in _classes()
        for replacement in (Replacement(cls, "update", _update_of(cls)), Replacement(cls, "get_mask_sizes", _sizes))
    )


def _update_of(cls: type) -> Callable[[Any], Any]:
    return _update_of_layer(counter_of(cls)) if probes.has_layers() else _update_of_lists


PATCH = Patch(
    name="windows-in-pieces",
    replaces="update and get_mask_sizes of SlidingWindowCache, HybridCache and SlidingWindowLayer (4.53 to 4.56)",
    why="several tokens that cross a window at once attend to too little, or raise in 4.56",
    page="docs/known-failures/sliding-window-in-pieces.md",
    probe=_probe,
    replacements=_replacements,
    repairs=True,
)
