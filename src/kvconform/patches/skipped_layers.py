"""A repair: layers that are skipped in a DynamicCache of transformers 4.44.

A model whose attention layers stand between layers of other kinds writes some layers of its cache and never the others.
Since 4.45 `update` puts empty lists in their places; 4.44 appends the layer where it does not belong, or raises. Here
it does what 4.45 does: empty lists stand for what was skipped, a later token may still fill them, and whatever changes
all layers leaves them as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from kvconform import probes
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed

__all__ = ["PATCH"]

_OF_ALL_LAYERS = ("crop", "reorder_cache", "batch_repeat_interleave", "batch_select_indices")


def _class() -> Any:
    return probes.cache_class("DynamicCache")


def _probe() -> Answer:
    cls = _class()
    if cls is None or probes.has_layers():
        return not_applicable("this release keeps its caches as layers")
    token = torch.zeros(1, 1, 1, 1)
    try:
        cls().update(token, token, 1)
    except IndexError:
        return needed("a DynamicCache of this release cannot skip a layer")
    return not_needed("a DynamicCache of this release keeps empty lists for layers that are skipped")


def _is_skipped(cache: Any, index: int) -> bool:
    return not isinstance(cache.key_cache[index], torch.Tensor)


def _update(native: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(native)
    def update(
        self: Any,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        cache_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        for _ in range(len(self.key_cache), layer_idx):
            self.key_cache.append([])
            self.value_cache.append([])
        if layer_idx == len(self.key_cache) or not _is_skipped(self, layer_idx):
            return native(self, key_states, value_states, layer_idx, cache_kwargs)
        if layer_idx == 0:
            self._seen_tokens += key_states.shape[-2]
        self.key_cache[layer_idx], self.value_cache[layer_idx] = key_states, value_states
        return key_states, value_states

    return update


def _get_seq_length(native: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(native)
    def get_seq_length(self: Any, layer_idx: int | None = 0) -> Any:
        index = layer_idx or 0
        is_skipped = index < len(self.key_cache) and _is_skipped(self, index)
        return 0 if is_skipped else native(self, layer_idx)

    return get_seq_length


def _of_written(native: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for a method that changes every layer: it sees those that were written."""

    @functools.wraps(native)
    def change(self: Any, *args: Any, **named: Any) -> Any:
        skipped = [index for index in range(len(self.key_cache)) if _is_skipped(self, index)]
        for index in reversed(skipped):
            del self.key_cache[index], self.value_cache[index]
        try:
            return native(self, *args, **named)
        finally:
            for index in skipped:
                self.key_cache.insert(index, [])
                self.value_cache.insert(index, [])

    return change


def _replacements() -> tuple[Replacement, ...]:
    cls = _class()
    return (
        Replacement(cls, "update", _update),
        Replacement(cls, "get_seq_length", _get_seq_length),
        # Where the class inherits the method, that of the base is replaced.
        *(
            Replacement(next(base for base in cls.__mro__ if name in vars(base)), name, _of_written)
            for name in _OF_ALL_LAYERS
        ),
    )


PATCH = Patch(
    name="skipped-layers",
    replaces="update, get_seq_length, crop and what selects batches of DynamicCache (4.44)",
    why="a model that skips layers of its cache raises, or finds what it wrote in another layer",
    page="docs/known-failures/skipped-layers.md",
    probe=_probe,
    replacements=_replacements,
    repairs=True,
)
