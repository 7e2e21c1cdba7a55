"""Example caches of layers that few models have, and of the caches of draft models.

Linear attention, sparse attention with an indexer, sinks, quantized states, and layers that keep nothing.
"""

from __future__ import annotations

import functools
import inspect

from kvconform.checks import builders, special_builders
from kvconform.checks.example import Example
from kvconform.checks.needs import Need, cache_class, has, lookup

_part = functools.partial
_MAMBA = has(special_builders.MAMBA)
_QUANTIZING = Need(lambda: special_builders.quantizing() is not None, "this release has no QuantizedCache of two lists")
_LINEAR = cache_class("LinearAttentionLayer")
_RECORDS = has("transformers.cache_utils:Cache.activate_past_recording")


def _sinks() -> bool:
    """From 4.53 the name is there, and making one refuses: the class has moved to the hub."""
    return "update" in vars(lookup("transformers.cache_utils:SinkCache") or object)


_SINKS = Need(_sinks, "this release has no working transformers.cache_utils.SinkCache")


def _several_states() -> bool:
    """From 5.14 a linear-attention layer holds any number of states."""
    cls = lookup("transformers.cache_utils:LinearAttentionLayer")
    return cls is not None and "number_of_states" in inspect.signature(cls).parameters


_SEVERAL_STATES = Need(_several_states, "the linear-attention layers of this release hold one state, or are not there")


def _keeps_positions() -> bool:
    cls = lookup("transformers.cache_utils:DynamicIndexedLayer")
    return cls is not None and hasattr(cls(), "indexer_position_ids")


_POSITIONS = Need(_keeps_positions, "the indexers of this release keep no positions, or are not there")

SPECIAL: tuple[Example, ...] = (
    Example(
        "linear-attention",
        "DynamicCache, linear and full attention",
        _part(special_builders.linear, types=["linear_attention", "full_attention"]),
        needs=(_LINEAR,),
    ),
    Example(
        "linear-attention-only",
        "DynamicCache, linear attention in each of two layers",
        _part(special_builders.linear, types=["linear_attention", "linear_attention"]),
        needs=(_LINEAR,),
        grows=False,
    ),
    Example(
        "linear-attention-unfilled",
        "DynamicCache, linear and full attention, only the latter written",
        _part(special_builders.linear, types=["linear_attention", "full_attention"], parts=()),
        needs=(_LINEAR,),
    ),
    Example(
        "convolutions",
        "DynamicCache, full attention and layers with the states of convolutions alone",
        _part(special_builders.linear, types=["conv", "full_attention", "conv"], parts=("conv",)),
        needs=(_LINEAR,),
    ),
    Example(
        "convolutions-recorded",
        "DynamicCache, the states of convolutions alone, recorded until the next crop",
        _part(special_builders.linear, types=["conv", "full_attention", "conv"], parts=("conv",), recorded=True),
        needs=(_LINEAR, _RECORDS),
    ),
    Example(
        "linear-attention-states",
        "DynamicCache, linear attention of three states a layer, and full attention",
        _part(special_builders.linear, types=["linear_attention", "full_attention"], count=3),
        needs=(_SEVERAL_STATES,),
    ),
    Example(
        "hybrid-attention",
        "DynamicCache, linear and full attention in the same layers",
        _part(special_builders.linear, types=["hybrid", "hybrid"]),
        needs=(cache_class("LinearAttentionAndFullAttentionLayer"),),
    ),
    Example(
        "hybrid-sliding-past",
        "DynamicCache, linear and sliding attention in the same layer, window 4, after 9 tokens",
        _part(special_builders.linear, types=["hybrid_sliding", "hybrid"]),
        9,
        (cache_class("LinearAttentionAndSlidingWindowAttentionLayer"),),
        grows=False,
    ),
    Example(
        "hybrid-sliding-below",
        "DynamicCache, linear and sliding attention in the same layer, window 4, after 2 tokens",
        _part(special_builders.linear, types=["hybrid_sliding", "hybrid", "hybrid_sliding"]),
        2,
        (cache_class("LinearAttentionAndSlidingWindowAttentionLayer"),),
    ),
    Example(
        "static-hybrid",
        "StaticCache of 12, linear and full attention, and linear and sliding attention, after 9 tokens",
        _part(special_builders.linear, types=["hybrid", "hybrid_sliding"], of=special_builders.static_of),
        9,
        (cache_class("LinearAttentionAndStaticSlidingWindowAttentionLayer"),),
        grows=False,
    ),
    Example(
        "sliding-recorded",
        "DynamicCache, sliding, full, sliding; window 4, after 9 tokens that are recorded until the next crop",
        special_builders.recorded,
        9,
        (_RECORDS,),
    ),
    Example(
        "indexed",
        "DynamicCache, sparse attention with an indexer, and full attention",
        _part(special_builders.indexed, of=special_builders.dynamic_of),
        needs=(cache_class("DynamicIndexedLayer"),),
    ),
    Example(
        "indexed-positions",
        "DynamicCache, sparse attention with an indexer that keeps the positions of its keys, in two of three layers",
        _part(special_builders.indexed, of=special_builders.dynamic_of, positions=True),
        needs=(_POSITIONS,),
    ),
    Example(
        "static-indexed-positions",
        "StaticCache of 12, sparse attention with an indexer that keeps the positions of its keys",
        _part(special_builders.indexed, of=special_builders.static_of, positions=True),
        needs=(_POSITIONS, cache_class("StaticIndexedLayer")),
        grows=False,
    ),
    Example(
        "static-indexed",
        "StaticCache of 12, sparse attention with an indexer, and full attention",
        _part(special_builders.indexed, of=special_builders.static_of),
        needs=(cache_class("StaticIndexedLayer"),),
        grows=False,
    ),
    Example(
        "layer-without-cache",
        "DynamicCache, full attention and a layer that keeps nothing",
        special_builders.without_cache,
        needs=(cache_class("DummyLayer"),),
    ),
    Example("sink-below", "SinkCache of 6, 2 sinks, after 4 tokens", special_builders.sink, 4, (_SINKS,), grows=False),
    Example("sink-past", "SinkCache of 6, 2 sinks, after 9 tokens", special_builders.sink, 9, (_SINKS,), grows=False),
    Example(
        "quantized-fp8",
        "QuantizedCache of 8-bit floats",
        special_builders.quantized,
        needs=(cache_class("Fp8QuantizedLayer"),),
    ),
    Example(
        "quantized-scaled",
        "a user's QuantizedCache of 8-bit integers and scales, after 5 tokens",
        special_builders.scaled,
        needs=(_QUANTIZING,),
        grows=False,
    ),
    Example(
        "mamba-cache", "MambaCache, 3 layers", special_builders.mamba, needs=(has(special_builders.MAMBA),), grows=False
    ),
    Example("mtp-cache", "MtpCache", _part(special_builders.draft, name="MtpCache"), needs=(cache_class("MtpCache"),)),
    Example(
        "mtp-cache-configured",
        "MtpCache made from a configuration with windows of 4",
        _part(special_builders.draft, name="MtpCache", make=builders.sliding),
        9,
        (cache_class("MtpCache"),),
        grows=False,
    ),
    Example(
        "dflash-cache",
        "DFlashCache with 2 accepted tokens",
        _part(special_builders.draft, name="DFlashCache"),
        needs=(cache_class("DFlashCache"),),
    ),
    Example(
        "dflash-cache-configured",
        "DFlashCache with 2 accepted tokens, made from a configuration with windows of 4",
        _part(special_builders.draft, name="DFlashCache", make=builders.sliding),
        9,
        (cache_class("DFlashCache"),),
        grows=False,
    ),
)
