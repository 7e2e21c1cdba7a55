"""Builds example caches through transformers' public constructors and `update`, never by a subject's helper.

Each builder takes a batch size, a length, a dtype and a device, and makes the same structure at any of them. Sizes: 2
key heads, 8 wide, a window of 4, static caches of 12 positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from kvconform.checks.behave import append, crop, states
from kvconform.checks.needs import lookup

HEADS, WIDTH, WINDOW, MAXIMUM = 2, 8, 4, 12


@dataclass(frozen=True)
class Sizes:
    """Key heads, the widths of keys and of values, how much larger all are from one layer to the next, and the window.

    The maximum is the length of preallocated caches.
    """

    heads: int = HEADS
    width: int = WIDTH
    values: int = WIDTH
    more: int = 0
    window: int = WINDOW
    maximum: int = MAXIMUM


_SIZES: ContextVar[Sizes] = ContextVar("sizes")


def now() -> Sizes:
    """The sizes that caches are built at: the usual ones outside of :func:`sizes`."""
    return _SIZES.get(Sizes())


@contextmanager
def sizes(at: Sizes) -> Iterator[None]:
    """Inside the block, caches are built at other sizes."""
    token = _SIZES.set(at)
    try:
        yield
    finally:
        _SIZES.reset(token)


class Builder(Protocol):
    """Builds a cache at a batch size and length, of a type, on a device."""

    def __call__(self, batch: int, length: int, dtype: torch.dtype, device: str) -> Any: ...  # noqa: D102 - a protocol


def config(layers: int = 2, *, window: int | None = None, types: list[str] | None = None, **more: Any) -> Any:
    """A tiny configuration: Llama's, or Mistral's with a sliding window, or one with the given layer types."""
    settings: dict[str, Any] = {
        "hidden_size": 2 * now().heads * now().width,
        "intermediate_size": 16,
        "num_attention_heads": 2 * now().heads,
        "num_key_value_heads": now().heads,
        # Not every release derives it where a configuration leaves it out (4.53's HybridCache fails on None).
        "head_dim": now().width,
        "num_hidden_layers": layers,
        "max_position_embeddings": 64,
        "vocab_size": 32,
        **more,
    }
    import transformers

    if window is None:
        return transformers.LlamaConfig(**settings)
    made = transformers.MistralConfig(**settings, sliding_window=window)
    if types is not None:
        made.layer_types = types
    return made


def fill(  # noqa: PLR0913, PLR0917 - a builder or check of many settings
    cache: Any, batch: int, length: int, layers: list[int], dtype: torch.dtype, device: str, step: int | None = None
) -> Any:
    """Append `length` tokens to the given layers, at once or `step` at a time."""
    for layer in layers:
        at, more = now(), layer * now().more
        options: dict[str, Any] = {"seed": layer, "dtype": dtype, "device": torch.device(device)}
        keys, values = states(batch, at.heads + more, length, at.width + more, **options)
        if at.values != at.width:
            values = states(batch, at.heads + more, length, at.values + more, **options)[1]
        for start in range(0, length, step or max(length, 1)):
            end = min(start + (step or length), length)
            append(cache, keys[:, :, start:end], values[:, :, start:end], layer, start)
    return cache


def dynamic(batch: int, length: int, dtype: torch.dtype, device: str, *, layers: int, step: int | None = None) -> Any:  # noqa: PLR0913 - a builder or check of many settings
    """A DynamicCache made without a configuration."""
    return fill(lookup("transformers.cache_utils:DynamicCache")(), batch, length, [*range(layers)], dtype, device, step)


def empty(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:  # noqa: ARG001 - a builder
    """A DynamicCache that nothing is written to."""
    return lookup("transformers.cache_utils:DynamicCache")()


def skipped(batch: int, length: int, dtype: torch.dtype, device: str, *, written: list[int]) -> Any:
    """A DynamicCache of which only some layers are written."""
    return fill(lookup("transformers.cache_utils:DynamicCache")(), batch, length, written, dtype, device)


def cropped(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    """A DynamicCache from which two tokens were cropped."""
    cache = dynamic(batch, length + 2, dtype, device, layers=2)
    crop(cache, length + 2, 2)
    return cache


def reordered(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    """A DynamicCache whose batch was reversed."""
    cache = dynamic(batch, length, dtype, device, layers=2)
    cache.reorder_cache(torch.arange(batch - 1, -1, -1, device=device))
    return cache


def configured(  # noqa: PLR0913 - a builder or check of many settings
    batch: int,
    length: int,
    dtype: torch.dtype,
    device: str,
    *,
    make: Callable[[], Any],
    layers: int = 2,
    step: int | None = None,
) -> Any:
    """A DynamicCache that was given a configuration."""
    cache = lookup("transformers.cache_utils:DynamicCache")(config=make())
    return fill(cache, batch, length, [*range(layers)], dtype, device, step)


def unfilled(batch: int, length: int, dtype: torch.dtype, device: str, *, make: Callable[[], Any]) -> Any:  # noqa: ARG001
    """A DynamicCache made from a configuration, with nothing written."""
    return lookup("transformers.cache_utils:DynamicCache")(config=make())


def sliding_past_the_maximum() -> Any:
    """A configuration whose window is wider than a preallocated cache is long."""
    return config(window=now().maximum + 4)


def static(  # noqa: PLR0913 - a builder or check of many settings
    batch: int,
    length: int,
    dtype: torch.dtype,
    device: str,
    *,
    name: str = "StaticCache",
    make: Callable[[], Any] = config,
    maximum: int | None = None,
) -> Any:
    """A cache with preallocated tensors; older releases want every size when it is made, newer ones ignore those."""
    made = make()
    cls = lookup(f"transformers.cache_utils:{name}")
    maximum, on = now().maximum if maximum is None else maximum, torch.device(device)
    cache = cls(config=made, max_batch_size=batch, max_cache_len=maximum, device=on, dtype=dtype)
    return fill(cache, batch, length, [*range(made.num_hidden_layers)], dtype, device)


def early_static(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:  # noqa: ARG001 - a builder
    """A StaticCache whose tensors exist before the first token, as the export recipes have it."""
    cache = lookup("transformers.cache_utils:StaticCache")(config=config(), max_cache_len=now().maximum)
    cache.early_initialization(batch, now().heads, now().width, dtype, torch.device(device))
    return cache


def encoder_decoder(  # noqa: PLR0913 - a builder or check of many settings
    batch: int, length: int, dtype: torch.dtype, device: str, *, part: Callable[..., Any], crossed: bool = True
) -> Any:
    """An EncoderDecoderCache, with its cross attention written or not."""
    itself = part(batch, length, dtype, device)
    cross = dynamic(batch, 6, dtype, device, layers=2) if crossed else empty(batch, 0, dtype, device)
    cache = lookup("transformers.cache_utils:EncoderDecoderCache")(itself, cross)
    if crossed:
        # What a decoder layer does after it has written its cross attention.
        for layer in range(2):
            cache.is_updated[layer] = True
    return cache


def typed(types: list[str], **more: Any) -> Any:
    """A configuration of these layer types."""
    return config(len(types), window=now().window, types=types, **more)


def sliding() -> Any:
    """A configuration with a window in each of two layers."""
    return config(window=now().window)


def mixed() -> Any:
    """A configuration of sliding, full and sliding layers."""
    return config(3, window=now().window, types=["sliding_attention", "full_attention", "sliding_attention"])
