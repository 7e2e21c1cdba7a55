"""Dynamic shapes for torch.export, read off a cache: for exactly this registration, nothing dynamic that is not."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform import flatten, probes

__all__ = ["dynamic_shapes_for"]

_LEAF = re.compile(r"(?P<name>.+)_(?P<letters>[A-Z]+)\d*_(?P<index>\d+)")
_MODEL_LAYER = re.compile(r"#(?P<index>\d+)\.class=.*", re.DOTALL)
_PLACES = {"key": (0, 2), "value": (0, 2), "indexer_keys": (0, 1), "indexer_position_ids": (1, 2)}
"""The dimensions of batch and tokens, by the name of a leaf; the batch comes first in all others."""
_GROWING = frozenset({"D", "W", "I", "LD", "LW", "K"})


def dynamic_shapes_for(tree: Any, batch: Any = None, length: Any = None, cross_length: Any = None) -> Any:
    """What `torch.export.export(dynamic_shapes=...)` wants for a cache, or for arguments with caches among them.

    Args:
        tree: a cache, or lists, tuples and dicts of caches and other things. Tensors that are not in a cache get None:
            say yourself what is dynamic in them.
        batch: a `Dim`, `Dim.DYNAMIC`, `Dim.AUTO` or None, for the first dimension of every tensor in a cache.
        length: the same for the tokens of layers that grow. Static layers, and sliding layers past their window, have
            no dynamic length; their counter is an int, `Dim.AUTO` where torch takes dynamic ints (not up to 2.7). A
            sliding layer with one structure for all lengths (inside `exportable()`) has `Dim.AUTO`: the number of its
            tokens stops growing at the window, and that of other layers does not.
        cross_length: the same for the cross attention of an EncoderDecoderCache.

    Returns:
        One entry a leaf in a list for each cache (torch compares a registered class with the list of its children),
        and the containers of `tree` around them.
    """
    if _is_cache(tree):
        return _cache_shapes(tree, batch, length, cross_length)
    if isinstance(tree, dict):
        return {key: dynamic_shapes_for(value, batch, length, cross_length) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(dynamic_shapes_for(value, batch, length, cross_length) for value in tree)
    return None


def _is_cache(value: Any) -> bool:
    node = py_pytree.SUPPORTED_NODES.get(type(value))
    if node is not None and node.flatten_fn in (flatten.flatten_cache, flatten.flatten_counted_cache):
        return True
    base = probes.cache_class("Cache")
    return base is not None and isinstance(value, base)


def _cache_shapes(cache: Any, batch: Any, length: Any, cross_length: Any) -> list[Any]:
    counted = _is_counted(cache)
    pairs, context = (
        flatten.flatten_with_keys_counted_cache(cache) if counted else flatten.flatten_with_keys_cache(cache)
    )
    names = [key.key for key, _ in pairs]
    of_models = {match["index"] for text in context if (match := _MODEL_LAYER.fullmatch(text))}
    with_counter = {
        match["index"] for name in names if (match := _LEAF.fullmatch(name)) and match["name"] == "cumulative_length"
    }
    shapes: list[Any] = []
    for name, (_, child) in zip(names, pairs, strict=False):
        if _is_cache(child):
            shapes.append(_cache_shapes(child, batch, cross_length if name.startswith("cross") else length, None))
        elif isinstance(child, int):
            shapes.append(_dynamic_int())
        else:
            match = _LEAF.fullmatch(name)
            # Only keys and values stay within the window: what else a layer has may grow on.
            slides = match is not None and match["index"] in with_counter and match["name"] in ("key", "value")
            # Past a window the number of tokens stays. Of one structure for all lengths it is a number of its own.
            of_window = torch.export.Dim.AUTO if counted and length is not None else None
            of_a_model = match is not None and match["index"] in of_models
            tokens = of_window if slides else length
            shapes.append(_tensor_shape(name, child, batch, tokens, of_a_model=of_a_model))
    return shapes


def _is_counted(cache: Any) -> bool:
    """Whether the registration in force gives a sliding layer one structure for all lengths."""
    node = py_pytree.SUPPORTED_NODES.get(type(cache))
    return node is not None and node.flatten_fn is flatten.flatten_counted_cache


def _tensor_shape(
    name: str, tensor: torch.Tensor, batch: Any, length: Any, *, of_a_model: bool
) -> dict[int, Any] | None:
    match = _LEAF.fullmatch(name)
    if tensor.dim() < 2 or (match is None and not name.startswith(("conv_states", "ssm_states"))):  # noqa: PLR2004
        # Counters and flags, and what has no tokens yet.
        return None
    first, position = _PLACES.get(match["name"] if match else name, (0, None))
    shape = {} if batch is None else {first: batch}
    if match is None or length is None:
        return shape or None
    # The code of a class that lives with its model is that of its base after an M.
    if position is not None and match["letters"][of_a_model:] in _GROWING:
        shape[position] = length
    elif position is None and of_a_model:
        # No rule says which dimension of a tensor of its own grows: torch finds out.
        shape.update(dict.fromkeys(range(1, tensor.dim()), torch.export.Dim.AUTO))
    return shape or None


def _dynamic_int() -> Any:
    return torch.export.Dim.AUTO if probes.takes_dynamic_int() else None
