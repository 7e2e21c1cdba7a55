"""One reading of any cache, and four operations with one meaning on every release.

What transformers changed under the same names: `update` lost `cache_kwargs` in 5.4, `get_mask_sizes` came in 4.53 with
cache positions and takes a query length since 5.4, `crop` takes a count to remove since 5.15, `key_cache` is gone since
4.56.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from kvconform import probes
from kvconform.errors import CacheStructureError

__all__ = ["CacheView", "crop_to", "lengths", "mask_sizes", "reorder", "update", "view_of"]


@dataclass(frozen=True)
class CacheView:
    """What a cache holds, read once.

    Attributes:
        key_cache: keys of each layer, shape (batch, heads, tokens, head size); None for a layer that holds nothing.
        value_cache: values of each layer.
        layer_classes: class name of each layer; on lists (up to 4.53) the class name of the cache.
        lengths: tokens that each layer has seen (of an EncoderDecoderCache, in self attention), which is more than it
            holds once it is past a window.
        inner: the views of an EncoderDecoderCache's two caches, (self attention, cross attention), else ().
    """

    key_cache: tuple[torch.Tensor | None, ...]
    value_cache: tuple[torch.Tensor | None, ...]
    layer_classes: tuple[str, ...]
    lengths: tuple[int, ...]
    inner: tuple[CacheView, ...] = ()


def view_of(cache: Any) -> CacheView:
    """Read a cache of any class and release."""
    if hasattr(cache, "self_attention_cache"):
        inner = (view_of(cache.self_attention_cache), view_of(cache.cross_attention_cache))
        first = inner[0]
        return CacheView(first.key_cache, first.value_cache, first.layer_classes, first.lengths, inner)
    layers = vars(cache).get("layers")
    if layers is not None:
        keys = tuple(getattr(layer, "keys", None) for layer in layers)
        values = tuple(getattr(layer, "values", None) for layer in layers)
        return CacheView(keys, values, tuple(type(layer).__name__ for layer in layers), lengths(cache))
    if not hasattr(cache, "key_cache"):
        # MambaCache has states, no keys.
        return CacheView((), (), (), ())
    # A skipped layer is an empty list until 4.49 and an empty tensor from 4.50 on.
    keys = tuple(key if isinstance(key, torch.Tensor) and key.numel() else None for key in cache.key_cache)
    values = tuple(v if isinstance(v, torch.Tensor) and v.numel() else None for v in cache.value_cache)
    return CacheView(keys, values, (type(cache).__name__,) * len(keys), lengths(cache))


def lengths(cache: Any) -> tuple[int, ...]:
    """Tokens that each layer has seen."""
    cache = getattr(cache, "self_attention_cache", cache)
    count = len(vars(cache)["layers"]) if "layers" in vars(cache) else len(getattr(cache, "key_cache", ()))
    return tuple(_length(cache, index) for index in range(count))


def _length(cache: Any, index: int) -> int:
    if "layers" in vars(cache):
        layer = cache.layers[index]
        # Linear attention layers and dummies have no length.
        return int(layer.get_seq_length()) if hasattr(layer, "get_seq_length") else 0
    keys = cache.key_cache[index]
    if not len(keys):
        return 0
    # HybridCache up to 4.53 answers for the whole cache only; its layers are of one length.
    length = cache.get_seq_length() if hasattr(cache, "is_sliding") else cache.get_seq_length(index)
    # HybridCache of 4.44 answers None.
    return 0 if length is None else int(length)


def update(cache: Any, key: torch.Tensor, value: torch.Tensor, layer: int, start: int | None = None) -> tuple[Any, Any]:
    """Append tokens to one layer.

    Args:
        cache: the cache, changed in place.
        key: shape (batch, heads, tokens, head size).
        value: shape (batch, heads, tokens, head size).
        layer: index of the layer.
        start: position of the first token; the layer's length if not given.

    Returns:
        Keys and values to attend to, as `update` of the class gives them.
    """
    if start is None:
        known = vars(cache).get("layers", getattr(cache, "key_cache", ()))
        start = _length(cache, layer) if layer < len(known) else 0
    positions = torch.arange(start, start + key.shape[-2], device=key.device)
    extra: dict[str, Any] = {"cache_position": positions}
    if "key_cache" in vars(cache) and hasattr(cache, "is_sliding") and not isinstance(cache.is_sliding, bool):
        # HybridCache up to 4.53 needs to know at each update whether its layer slides.
        extra["sliding_window"] = int(cache.key_cache[layer].shape[-2]) if bool(cache.is_sliding[layer]) else None
    if probes.takes_cache_kwargs(type(cache)):
        result: tuple[Any, Any] = cache.update(key, value, layer, extra)
        return result
    keys, values = cache.update(key, value, layer)
    return keys, values


def crop_to(cache: Any, length: int) -> None:
    """Keep the first `length` tokens of every layer.

    Raises:
        CacheStructureError: the cache cannot forget its last tokens (static caches, or past a window).
    """
    now = max(lengths(getattr(cache, "self_attention_cache", cache)), default=0)
    if length >= now:
        return
    if not probes.crops(type(cache)):
        raise CacheStructureError(f"a {type(cache).__name__} cannot be cropped ({probes.release()}): build it anew")
    try:
        cache.crop(length - now if probes.crops_by_count(type(cache)) else length)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise CacheStructureError(
            f"this {type(cache).__name__} cannot be cropped to {length} of {now} tokens: {error}"
        ) from error


def mask_sizes(cache: Any, query_length: int, layer: int = 0) -> tuple[int, int]:
    """Length and offset of the keys that `query_length` new tokens will attend to in one layer.

    Before 4.53 caches do not tell; there it follows from the class: all tokens, or the allocated ones of a static
    cache.
    """
    known = lengths(cache)
    start = known[layer] if layer < len(known) else 0
    if probes.tells_mask_sizes(type(cache)):
        if probes.masks_by_query_length(type(cache)):
            sizes = cache.get_mask_sizes(query_length, layer)
        else:
            sizes = cache.get_mask_sizes(torch.arange(start, start + query_length), layer)
        return int(sizes[0]), int(sizes[1])
    if hasattr(cache, "max_cache_len"):
        return int(cache.key_cache[layer].shape[-2]), 0
    return start + query_length, 0


def reorder(cache: Any, indices: torch.Tensor) -> None:
    """Choose rows of the batch, as beam search does.

    Args:
        cache: the cache, changed in place.
        indices: int64, shape (new batch,).
    """
    cache.reorder_cache(indices)
