"""Example caches, each built through transformers' public constructors and ``update``, never by a subject's helper.

A recipe builds the same structure at any batch size and length, so that checks can compare two lengths or try unseen
ones.
Sizes: 2 key heads, 8 wide, a window of 4, static caches of 12 positions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from kvconform.checks.behave import append, crop, states
from kvconform.checks.needs import Need, cache_class, has, lookup

HEADS, WIDTH, WINDOW, MAXIMUM = 2, 8, 4, 12


class Builder(Protocol):
    """Builds a cache at a batch size and length, of a type, on a device."""

    def __call__(self, batch: int, length: int, dtype: torch.dtype, device: str) -> Any: ...  # noqa: D102 - a protocol


@dataclass(frozen=True)
class Recipe:
    """One example cache: its name in ids, a line about it, how to build it, the length it is usually built at."""

    name: str
    about: str
    builder: Builder
    length: int = 5
    needs: tuple[Need, ...] = ()
    dtype: str = "float32"
    grows: bool = True
    """Whether its key tensors are longer at another length (dynamic shapes can be asked for)."""
    longest: int = 1024
    """The longest cache that one exported program can be asked to take; less for a cache below its window."""

    def build(self, batch: int = 2, length: int | None = None, device: str = "cpu") -> Any:
        """Build it; the tensors' elements are the same for the same arguments."""
        return self.builder(batch, self.length if length is None else length, getattr(torch, self.dtype), device)

    @property
    def where(self) -> str:
        """What a message says about the cache."""
        return f"{self.name}: {self.about}"


def config(layers: int = 2, *, window: int | None = None, types: list[str] | None = None, **more: Any) -> Any:
    """A tiny configuration: Llama's, or Mistral's with a sliding window, or one with the given layer types."""
    settings: dict[str, Any] = {
        "hidden_size": 4 * WIDTH,
        "intermediate_size": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": HEADS,
        # Not every release derives it where a configuration leaves it out (4.53's HybridCache fails on None).
        "head_dim": WIDTH,
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
    """Append ``length`` tokens to the given layers, at once or ``step`` at a time."""
    for layer in layers:
        keys, values = states(batch, HEADS, length, WIDTH, seed=layer, dtype=dtype, device=torch.device(device))
        for start in range(0, length, step or max(length, 1)):
            end = min(start + (step or length), length)
            append(cache, keys[:, :, start:end], values[:, :, start:end], layer, start)
    return cache


def _dynamic(batch: int, length: int, dtype: torch.dtype, device: str, *, layers: int, step: int | None = None) -> Any:  # noqa: PLR0913 - a builder or check of many settings
    return fill(lookup("transformers.cache_utils:DynamicCache")(), batch, length, [*range(layers)], dtype, device, step)


def _empty(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:  # noqa: ARG001 - a builder
    return lookup("transformers.cache_utils:DynamicCache")()


def _skipped(batch: int, length: int, dtype: torch.dtype, device: str, *, written: list[int]) -> Any:
    return fill(lookup("transformers.cache_utils:DynamicCache")(), batch, length, written, dtype, device)


def _cropped(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    cache = _dynamic(batch, length + 2, dtype, device, layers=2)
    crop(cache, length + 2, 2)
    return cache


def _reordered(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    cache = _dynamic(batch, length, dtype, device, layers=2)
    cache.reorder_cache(torch.arange(batch - 1, -1, -1, device=device))
    return cache


def _configured(  # noqa: PLR0913 - a builder or check of many settings
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


def _unfilled(batch: int, length: int, dtype: torch.dtype, device: str, *, make: Callable[[], Any]) -> Any:  # noqa: ARG001
    return lookup("transformers.cache_utils:DynamicCache")(config=make())


def static(  # noqa: PLR0913 - a builder or check of many settings
    batch: int,
    length: int,
    dtype: torch.dtype,
    device: str,
    *,
    name: str = "StaticCache",
    make: Callable[[], Any] = config,
) -> Any:
    """A cache with preallocated tensors; older releases want every size when it is made, newer ones ignore those."""
    made = make()
    cls = lookup(f"transformers.cache_utils:{name}")
    cache = cls(config=made, max_batch_size=batch, max_cache_len=MAXIMUM, device=torch.device(device), dtype=dtype)
    return fill(cache, batch, length, [*range(made.num_hidden_layers)], dtype, device)


def _early(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:  # noqa: ARG001 - a builder
    """A StaticCache whose tensors exist before the first token, as the export recipes have it."""
    cache = lookup("transformers.cache_utils:StaticCache")(config=config(), max_cache_len=MAXIMUM)
    cache.early_initialization(batch, HEADS, WIDTH, dtype, torch.device(device))
    return cache


def _encoder_decoder(  # noqa: PLR0913 - a builder or check of many settings
    batch: int, length: int, dtype: torch.dtype, device: str, *, part: Callable[..., Any], crossed: bool = True
) -> Any:
    itself = part(batch, length, dtype, device)
    cross = _dynamic(batch, 6, dtype, device, layers=2) if crossed else _empty(batch, 0, dtype, device)
    cache = lookup("transformers.cache_utils:EncoderDecoderCache")(itself, cross)
    if crossed:
        # What a decoder layer does after it has written its cross attention.
        for layer in range(2):
            cache.is_updated[layer] = True
    return cache


def _linear(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    cache = lookup("transformers.cache_utils:DynamicCache")(config=_typed(["linear_attention", "full_attention"]))
    generator = torch.Generator().manual_seed(7)
    cache.update_conv_state(torch.randn(batch, 6, 4, generator=generator).to(device=device, dtype=dtype), 0)
    cache.update_recurrent_state(torch.randn(batch, 2, 3, 5, generator=generator).to(device=device, dtype=dtype), 0)
    return fill(cache, batch, length, [1], dtype, device)


def _hybrid(batch: int, length: int, dtype: torch.dtype, device: str, *, types: list[str]) -> Any:
    """Layers that hold linear-attention states and keys and values at once."""
    cache = lookup("transformers.cache_utils:DynamicCache")(config=_typed(types))
    generator = torch.Generator().manual_seed(8)
    for layer in range(len(types)):
        cache.update_conv_state(torch.randn(batch, 6, 4, generator=generator).to(device=device, dtype=dtype), layer)
        state = torch.randn(batch, 2, 3, 5, generator=generator)
        cache.update_recurrent_state(state.to(device=device, dtype=dtype), layer)
    return fill(cache, batch, length, [*range(len(types))], dtype, device)


def _indexed(batch: int, length: int, dtype: torch.dtype, device: str, *, of: Callable[[Any], Any]) -> Any:
    """Sparse attention's layers, which hold the keys of an indexer too: (batch, length, width)."""
    # The layer type had another name until 5.17.
    known = lookup("transformers.cache_utils:DYNAMIC_LAYER_TYPE_MAPPING") or {}
    name = "indexed_attention" if "indexed_attention" in known else "deepseek_sparse_attention"
    cache = of(_typed([name, "full_attention"]))
    fill(cache, batch, length, [0, 1], dtype, device)
    generator = torch.Generator().manual_seed(9)
    cache.layers[0].update_indexer(torch.randn(batch, length, 4, generator=generator).to(device=device, dtype=dtype))
    return cache


def _dynamic_of(made: Any) -> Any:
    return lookup("transformers.cache_utils:DynamicCache")(config=made)


def _static_of(made: Any) -> Any:
    return lookup("transformers.cache_utils:StaticCache")(config=made, max_cache_len=MAXIMUM)


def _without_cache(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    """A configuration whose second layer keeps nothing."""
    return fill(_dynamic_of(_typed(["full_attention", "dummy"])), batch, length, [0], dtype, device)


def _quantized(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    return fill(
        lookup("transformers.cache_utils:QuantizedCache")("fp8", config()), batch, length, [0, 1], dtype, device, 2
    )


def _sink(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    """Attention sinks: the first 2 tokens and the last 4, a token at a time past that."""
    cache = lookup("transformers.cache_utils:SinkCache")(window_length=6, num_sink_tokens=2)
    return fill(cache, batch, length, [0, 1], dtype, device, 1)


def _draft(batch: int, length: int, dtype: torch.dtype, device: str, *, name: str) -> Any:
    """A cache of a draft model, whose queries are ahead of its keys."""
    cache = fill(lookup(f"transformers.cache_utils:{name}")(), batch, length, [0, 1], dtype, device)
    if name == "DFlashCache":
        cache.set_previous_accepted_tokens(2)
    return cache


def _typed(types: list[str]) -> Any:
    return config(len(types), window=WINDOW, types=types)


def _sliding() -> Any:
    return config(window=WINDOW)


def _mixed() -> Any:
    return config(3, window=WINDOW, types=["sliding_attention", "full_attention", "sliding_attention"])


_DYNAMIC_SLIDING = cache_class("DynamicSlidingWindowLayer")
_LAYERED = cache_class("CacheLayerMixin")
_EARLY = has("transformers.cache_utils:Cache.early_initialization")
_part = functools.partial


def _sinks() -> bool:
    """From 4.53 the name is there, and making one refuses: the class has moved to the hub."""
    return "update" in vars(lookup("transformers.cache_utils:SinkCache") or object)


_SINKS = Need(_sinks, "this release has no working transformers.cache_utils.SinkCache")

RECIPES: tuple[Recipe, ...] = (
    Recipe("dynamic-one-layer", "DynamicCache, 1 layer", _part(_dynamic, layers=1)),
    Recipe("dynamic-two-layers", "DynamicCache, 2 layers", _part(_dynamic, layers=2)),
    Recipe("dynamic-three-layers", "DynamicCache, 3 layers", _part(_dynamic, layers=3)),
    Recipe("dynamic-float16", "DynamicCache, 2 layers of float16", _part(_dynamic, layers=2), dtype="float16"),
    Recipe("dynamic-bfloat16", "DynamicCache, 2 layers of bfloat16", _part(_dynamic, layers=2), dtype="bfloat16"),
    Recipe("dynamic-token-by-token", "DynamicCache, filled a token at a time", _part(_dynamic, layers=2, step=1)),
    Recipe("dynamic-one-token", "DynamicCache of one token", _part(_dynamic, layers=2), length=1),
    Recipe("dynamic-empty", "DynamicCache that nothing was written to", _empty, length=0, grows=False),
    Recipe(
        "dynamic-first-layer-skipped", "DynamicCache with layer 1 written and layer 0 not", _part(_skipped, written=[1])
    ),
    Recipe("dynamic-middle-layer-skipped", "DynamicCache with layers 0 and 2 written", _part(_skipped, written=[0, 2])),
    Recipe("dynamic-cropped", "DynamicCache after crop", _cropped),
    Recipe("dynamic-reordered", "DynamicCache after reorder_cache", _reordered),
    Recipe(
        "dynamic-configured",
        "DynamicCache made from a configuration",
        _part(_configured, make=config),
        needs=(_DYNAMIC_SLIDING,),
    ),
    Recipe(
        "dynamic-configured-unfilled",
        "DynamicCache made from a configuration, nothing written",
        _part(_unfilled, make=_mixed),
        length=0,
        needs=(_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Recipe(
        "sliding-below", "sliding window 4, after 2 tokens", _part(_configured, make=_sliding), 2, (_DYNAMIC_SLIDING,)
    ),
    Recipe(
        "sliding-one-below",
        "sliding window 4, after 3 tokens",
        _part(_configured, make=_sliding),
        3,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Recipe(
        "sliding-at",
        "sliding window 4, after 4 tokens",
        _part(_configured, make=_sliding),
        4,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Recipe(
        "sliding-past",
        "sliding window 4, after 9 tokens",
        _part(_configured, make=_sliding),
        9,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Recipe(
        "sliding-past-token-by-token",
        "sliding window 4, after 9 single tokens",
        _part(_configured, make=_sliding, step=1),
        9,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Recipe(
        "mixed-below",
        "sliding, full, sliding; window 4, after 2 tokens",
        _part(_configured, make=_mixed, layers=3),
        2,
        (_DYNAMIC_SLIDING,),
    ),
    Recipe(
        "mixed-past",
        "sliding, full, sliding; window 4, after 9 tokens",
        _part(_configured, make=_mixed, layers=3),
        9,
        (_DYNAMIC_SLIDING,),
    ),
    Recipe("static-below", "StaticCache of 12, after 5 tokens", static, grows=False),
    Recipe("static-full", "StaticCache of 12, after 12 tokens", static, MAXIMUM, grows=False),
    Recipe("static-early", "StaticCache of 12, initialized, no token", _early, 0, (_EARLY,), grows=False),
    Recipe(
        "static-sliding-below",
        "StaticCache with windows of 4, after 3 tokens",
        _part(static, make=_sliding),
        3,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Recipe(
        "static-sliding-past",
        "StaticCache with windows of 4, after 9 tokens",
        _part(static, make=_sliding),
        9,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Recipe(
        "static-mixed-past",
        "StaticCache, sliding, full, sliding; after 9 tokens",
        _part(static, make=_mixed),
        9,
        (_DYNAMIC_SLIDING,),
        grows=False,
    ),
    Recipe(
        "sliding-window-cache",
        "SlidingWindowCache of 12, window 4, after 3 tokens",
        _part(static, name="SlidingWindowCache", make=_sliding),
        3,
        (cache_class("SlidingWindowCache"),),
        grows=False,
    ),
    Recipe(
        "hybrid-cache",
        "HybridCache of 12, window 4, after 3 tokens",
        _part(static, name="HybridCache", make=_sliding),
        3,
        (cache_class("HybridCache"),),
        grows=False,
    ),
    Recipe(
        "encoder-decoder",
        "EncoderDecoderCache of two DynamicCaches",
        _part(_encoder_decoder, part=_part(_dynamic, layers=2)),
    ),
    Recipe(
        "encoder-decoder-not-crossed",
        "EncoderDecoderCache before cross attention was written",
        _part(_encoder_decoder, part=_part(_dynamic, layers=2), crossed=False),
    ),
    Recipe(
        "encoder-decoder-empty",
        "EncoderDecoderCache that nothing was written to",
        _part(_encoder_decoder, part=_empty, crossed=False),
        0,
        grows=False,
    ),
    Recipe(
        "encoder-decoder-static",
        "EncoderDecoderCache of a StaticCache and a DynamicCache",
        _part(_encoder_decoder, part=static),
        grows=False,
    ),
    Recipe(
        "linear-attention",
        "DynamicCache, linear and full attention",
        _linear,
        5,
        (cache_class("LinearAttentionLayer"),),
    ),
    Recipe(
        "hybrid-attention",
        "DynamicCache, linear and full attention in the same layers",
        _part(_hybrid, types=["hybrid", "hybrid"]),
        needs=(cache_class("LinearAttentionAndFullAttentionLayer"),),
    ),
    Recipe(
        "hybrid-sliding-past",
        "DynamicCache, linear and sliding attention in the same layer, window 4, after 9 tokens",
        _part(_hybrid, types=["hybrid_sliding", "hybrid"]),
        9,
        (cache_class("LinearAttentionAndSlidingWindowAttentionLayer"),),
        grows=False,
    ),
    Recipe(
        "indexed",
        "DynamicCache, sparse attention with an indexer, and full attention",
        _part(_indexed, of=_dynamic_of),
        needs=(cache_class("DynamicIndexedLayer"),),
    ),
    Recipe(
        "static-indexed",
        "StaticCache of 12, sparse attention with an indexer, and full attention",
        _part(_indexed, of=_static_of),
        needs=(cache_class("StaticIndexedLayer"),),
        grows=False,
    ),
    Recipe(
        "layer-without-cache",
        "DynamicCache, full attention and a layer that keeps nothing",
        _without_cache,
        needs=(cache_class("DummyLayer"),),
    ),
    Recipe("sink-below", "SinkCache of 6, 2 sinks, after 4 tokens", _sink, 4, (_SINKS,), grows=False),
    Recipe("sink-past", "SinkCache of 6, 2 sinks, after 9 tokens", _sink, 9, (_SINKS,), grows=False),
    Recipe("quantized-fp8", "QuantizedCache of 8-bit floats", _quantized, needs=(cache_class("Fp8QuantizedLayer"),)),
    Recipe("mtp-cache", "MtpCache", _part(_draft, name="MtpCache"), needs=(cache_class("MtpCache"),)),
    Recipe(
        "dflash-cache",
        "DFlashCache with 2 accepted tokens",
        _part(_draft, name="DFlashCache"),
        needs=(cache_class("DFlashCache"),),
    ),
)

BY_NAME = {recipe.name: recipe for recipe in RECIPES}


def recipes(*names: str) -> tuple[Recipe, ...]:
    """Some recipes by name; a name that ends in ``*`` takes all that start so."""
    chosen = [
        recipe
        for name in names
        for recipe in RECIPES
        if recipe.name == name or (name.endswith("*") and recipe.name.startswith(name[:-1]))
    ]
    return tuple(dict.fromkeys(chosen))
