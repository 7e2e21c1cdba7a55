"""Example caches by name, each with a line about it, a usual length, and what it needs of a release.

An example builds the same structure at any batch size and length, so that checks can compare two lengths or try unseen
ones. How each is built, and the sizes: `kvconform.checks.builders`. Those of layers that few models have:
`kvconform.checks.special`.
"""

from __future__ import annotations

import functools

from kvconform.checks import builders
from kvconform.checks.example import Example
from kvconform.checks.needs import cache_class, has
from kvconform.checks.special import SPECIAL

__all__ = ["BY_NAME", "EXAMPLES", "Example", "examples"]


_DYNAMIC_SLIDING = cache_class("DynamicSlidingWindowLayer")
_EARLY = has("transformers.cache_utils:Cache.early_initialization")
_part = functools.partial


EXAMPLES: tuple[Example, ...] = (
    Example("dynamic-one-layer", "DynamicCache, 1 layer", _part(builders.dynamic, layers=1)),
    Example("dynamic-two-layers", "DynamicCache, 2 layers", _part(builders.dynamic, layers=2)),
    Example("dynamic-three-layers", "DynamicCache, 3 layers", _part(builders.dynamic, layers=3)),
    Example("dynamic-float16", "DynamicCache, 2 layers of float16", _part(builders.dynamic, layers=2), dtype="float16"),
    Example(
        "dynamic-bfloat16", "DynamicCache, 2 layers of bfloat16", _part(builders.dynamic, layers=2), dtype="bfloat16"
    ),
    Example(
        "dynamic-token-by-token", "DynamicCache, filled a token at a time", _part(builders.dynamic, layers=2, step=1)
    ),
    Example("dynamic-one-token", "DynamicCache of one token", _part(builders.dynamic, layers=2), length=1),
    Example("dynamic-empty", "DynamicCache that nothing was written to", builders.empty, length=0, grows=False),
    Example(
        "dynamic-first-layer-skipped",
        "DynamicCache with layer 1 written and layer 0 not",
        _part(builders.skipped, written=[1]),
    ),
    Example(
        "dynamic-middle-layer-skipped",
        "DynamicCache with layers 0 and 2 written",
        _part(builders.skipped, written=[0, 2]),
    ),
    Example("dynamic-cropped", "DynamicCache after crop", builders.cropped),
    Example("dynamic-reordered", "DynamicCache after reorder_cache", builders.reordered),
    Example(
        "dynamic-configured",
        "DynamicCache made from a configuration",
        _part(builders.configured, make=builders.config),
        needs=(_DYNAMIC_SLIDING,),
    ),
    Example(
        "dynamic-configured-unfilled",
        "DynamicCache made from a configuration, nothing written",
        _part(builders.unfilled, make=builders.mixed),
        length=0,
        needs=(_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Example(
        "sliding-below",
        "sliding window 4, after 2 tokens",
        _part(builders.configured, make=builders.sliding),
        2,
        (_DYNAMIC_SLIDING,),
    ),
    Example(
        "sliding-one-below",
        "sliding window 4, after 3 tokens",
        _part(builders.configured, make=builders.sliding),
        3,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Example(
        "sliding-at",
        "sliding window 4, after 4 tokens",
        _part(builders.configured, make=builders.sliding),
        4,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Example(
        "sliding-past",
        "sliding window 4, after 9 tokens",
        _part(builders.configured, make=builders.sliding),
        9,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Example(
        "sliding-past-token-by-token",
        "sliding window 4, after 9 single tokens",
        _part(builders.configured, make=builders.sliding, step=1),
        9,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Example(
        "mixed-below",
        "sliding, full, sliding; window 4, after 2 tokens",
        _part(builders.configured, make=builders.mixed, layers=3),
        2,
        (_DYNAMIC_SLIDING,),
    ),
    Example(
        "mixed-past",
        "sliding, full, sliding; window 4, after 9 tokens",
        _part(builders.configured, make=builders.mixed, layers=3),
        9,
        (_DYNAMIC_SLIDING,),
    ),
    Example("static-below", "StaticCache of 12, after 5 tokens", builders.static, grows=False),
    Example("static-full", "StaticCache of 12, after 12 tokens", builders.static, builders.MAXIMUM, grows=False),
    Example(
        "static-early", "StaticCache of 12, initialized, no token", builders.early_static, 0, (_EARLY,), grows=False
    ),
    Example(
        "static-sliding-below",
        "StaticCache with windows of 4, after 3 tokens",
        _part(builders.static, make=builders.sliding),
        3,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Example(
        "static-sliding-past",
        "StaticCache with windows of 4, after 9 tokens",
        _part(builders.static, make=builders.sliding),
        9,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Example(
        "static-mixed-past",
        "StaticCache, sliding, full, sliding; after 9 tokens",
        _part(builders.static, make=builders.mixed),
        9,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Example(
        "sliding-window-cache",
        "SlidingWindowCache of 12, window 4, after 3 tokens",
        _part(builders.static, name="SlidingWindowCache", make=builders.sliding),
        3,
        (cache_class("SlidingWindowCache"),),
        grows=False,
    ),
    Example(
        "sliding-window-cache-wide",
        "SlidingWindowCache of 12, window 16, after 3 tokens",
        _part(builders.static, name="SlidingWindowCache", make=builders.sliding_past_the_maximum),
        3,
        (cache_class("SlidingWindowCache"),),
        grows=False,
    ),
    Example(
        "hybrid-chunked-cache",
        "HybridChunkedCache of 12, window 4, after 9 tokens",
        _part(builders.static, name="HybridChunkedCache", make=builders.sliding),
        9,
        (cache_class("HybridChunkedCache"),),
        grows=False,
    ),
    Example(
        "hybrid-cache",
        "HybridCache of 12, window 4, after 3 tokens",
        _part(builders.static, name="HybridCache", make=builders.sliding),
        3,
        (cache_class("HybridCache"),),
        grows=False,
    ),
    Example(
        "encoder-decoder",
        "EncoderDecoderCache of two DynamicCaches",
        _part(builders.encoder_decoder, part=_part(builders.dynamic, layers=2)),
    ),
    Example(
        "encoder-decoder-not-crossed",
        "EncoderDecoderCache before cross attention was written",
        _part(builders.encoder_decoder, part=_part(builders.dynamic, layers=2), crossed=False),
    ),
    Example(
        "encoder-decoder-empty",
        "EncoderDecoderCache that nothing was written to",
        _part(builders.encoder_decoder, part=builders.empty, crossed=False),
        0,
        grows=False,
    ),
    Example(
        "encoder-decoder-static",
        "EncoderDecoderCache of a StaticCache and a DynamicCache",
        _part(builders.encoder_decoder, part=builders.static),
        grows=False,
    ),
    *SPECIAL,
)

BY_NAME = {example.name: example for example in EXAMPLES}


def examples(*names: str) -> tuple[Example, ...]:
    """Some examples by name; a name that ends in `*` takes all that start so."""
    chosen = [
        example
        for name in names
        for example in EXAMPLES
        if example.name == name or (name.endswith("*") and example.name.startswith(name[:-1]))
    ]
    return tuple(dict.fromkeys(chosen))
