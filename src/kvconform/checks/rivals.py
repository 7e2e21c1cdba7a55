"""The caches of transformers that are compared with the reference KV cache, and the streams of tokens put to them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kvconform.checks.builders import MAXIMUM, WINDOW, Builder, config, fill, static
from kvconform.checks.needs import Need, cache_class, has, lookup
from kvconform.kvcache import Causal, window_from_visible


@dataclass(frozen=True)
class Attends:
    """What a layer's queries see, as transformers counts it: `visible` keys with the own one, or chunks of `chunk`."""

    visible: int | None = None
    chunk: int | None = None

    def reference(self) -> Causal:
        """The reference cache that sees the same."""
        if self.visible is not None:
            return Causal.sliding_window(window_from_visible(self.visible))
        return Causal.causal() if self.chunk is None else Causal.chunked(self.chunk)

    def mask(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """The mask of a model for these positions, as the mask functions of transformers have it: (queries, keys)."""
        query, key = queries[:, None], keys[None, :]
        seen = key <= query
        if self.visible is not None:
            seen &= key > query - self.visible
        if self.chunk is not None:
            seen &= key // self.chunk == query // self.chunk
        return torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)


@dataclass(frozen=True)
class Rival:
    """One of transformers' caches to compare: how it is built empty, and what its layers see."""

    name: str
    about: str
    builder: Builder
    layers: tuple[Attends, ...] = (Attends(), Attends())
    needs: tuple[Need, ...] = ()

    def build(self, batch: int) -> Any:
        """Build it, empty."""
        return self.builder(batch, 0, torch.float32, "cpu")


@dataclass(frozen=True)
class Stream:
    """How many tokens arrive at each step."""

    name: str
    steps: tuple[int, ...]


STREAMS = (
    Stream("token-by-token", (1,) * 10),
    Stream("prompt-one-below-window", (WINDOW - 1, 1, 1, 1, 1, 1)),
    Stream("prompt-of-window", (WINDOW, 1, 1, 1, 1)),
    Stream("prompt-past-window", (2 * WINDOW + 1, 1, 1, 1)),
    Stream("pieces", (2, 3, 1, 3, 2)),
)


def _dynamic(batch: int, length: int, dtype: torch.dtype, device: str, *, make: Callable[[], Any] | None = None) -> Any:
    cls = lookup("transformers.cache_utils:DynamicCache")
    return fill(cls(config=make()) if make else cls(), batch, length, [], dtype, device)


def _encoder_decoder(batch: int, length: int, dtype: torch.dtype, device: str, *, part: Builder) -> Any:
    cls = lookup("transformers.cache_utils:EncoderDecoderCache")
    return cls(part(batch, length, dtype, device), _dynamic(batch, 0, dtype, device))


def _sliding() -> Any:
    return config(window=WINDOW)


def _mixed() -> Any:
    return config(3, window=WINDOW, types=["sliding_attention", "full_attention", "sliding_attention"])


def _chunked() -> Any:
    made = config(2)
    made.layer_types = ["chunked_attention"] * 2
    made.attention_chunk_size = WINDOW
    return made


def _chunks_bounded(name: str) -> Need:
    """The release gives layers of chunked attention a bounded length in this class."""

    def met() -> bool:
        if not _DYNAMIC_SLIDING.met():
            return False
        cls = lookup(f"transformers.cache_utils:{name}")
        cache = cls(config=_chunked()) if name == "DynamicCache" else cls(config=_chunked(), max_cache_len=MAXIMUM)
        return bool(cache.layers) and bool(getattr(cache.layers[0], "is_sliding", False))

    return Need(met, f"this release has no bounded layers for chunked attention in {name}")


_part = functools.partial
_DYNAMIC_SLIDING = cache_class("DynamicSlidingWindowLayer")
_SIZES = has("transformers.cache_utils:Cache.get_mask_sizes")
_W = Attends(visible=WINDOW)
_C = Attends(chunk=WINDOW)

FULL = (
    Rival("dynamic", "DynamicCache", _dynamic),
    Rival("static", f"StaticCache of {MAXIMUM}", static),
)
WINDOWED = (
    Rival(
        "dynamic-sliding",
        f"DynamicCache, windows of {WINDOW}",
        _part(_dynamic, make=_sliding),
        (_W, _W),
        (_DYNAMIC_SLIDING,),
    ),
    Rival(
        "dynamic-mixed",
        f"DynamicCache, window of {WINDOW}, full, window",
        _part(_dynamic, make=_mixed),
        (_W, Attends(), _W),
        (_DYNAMIC_SLIDING,),
    ),
    Rival(
        "static-sliding",
        f"StaticCache, windows of {WINDOW}",
        _part(static, make=_sliding),
        (_W, _W),
        (_DYNAMIC_SLIDING,),
    ),
    Rival(
        "static-mixed",
        f"StaticCache, window of {WINDOW}, full, window",
        _part(static, make=_mixed),
        (_W, Attends(), _W),
        (_DYNAMIC_SLIDING,),
    ),
    Rival(
        "sliding-window-cache",
        f"SlidingWindowCache, window of {WINDOW}",
        _part(static, name="SlidingWindowCache", make=_sliding),
        (_W, _W),
        (cache_class("SlidingWindowCache"), _SIZES),
    ),
    Rival(
        "dynamic-chunked",
        f"DynamicCache, chunks of {WINDOW}",
        _part(_dynamic, make=_chunked),
        (_C, _C),
        (_chunks_bounded("DynamicCache"),),
    ),
    Rival(
        "static-chunked",
        f"StaticCache, chunks of {WINDOW}",
        _part(static, make=_chunked),
        (_C, _C),
        (_chunks_bounded("StaticCache"),),
    ),
)
CROSSED = (
    Rival("encoder-decoder", "EncoderDecoderCache of two DynamicCaches", _part(_encoder_decoder, part=_dynamic)),
    Rival(
        "encoder-decoder-static",
        "EncoderDecoderCache of a StaticCache and a DynamicCache",
        _part(_encoder_decoder, part=static),
    ),
)
