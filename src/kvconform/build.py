"""Builders: any cache class from pairs of tensors, with one signature on every release.

The constructors of transformers changed in 4.45, 4.50, 4.51, 4.54 and 4.56. What these builders share is
`make_*(pairs, ...)`: one (key, value) pair a layer, each of shape (batch, heads, tokens, head size).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch

from kvconform import probes
from kvconform.errors import CacheStructureError
from kvconform.view import update

__all__ = [
    "make_dynamic_cache",
    "make_encoder_decoder_cache",
    "make_hybrid_cache",
    "make_mamba_cache",
    "make_sliding_window_cache",
    "make_static_cache",
]

Pairs = Sequence[tuple[torch.Tensor, torch.Tensor]]


def make_dynamic_cache(
    pairs: Pairs,
    cls_layers: Sequence[type] | type | None = None,
    cls_kwargs: Sequence[dict[str, Any]] | dict[str, Any] | None = None,
) -> Any:
    """A DynamicCache that holds these tensors themselves, not copies.

    Args:
        pairs: keys and values of each layer.
        cls_layers: a layer class a layer, or one for all. DynamicLayer where not given. Needs 4.54 or later.
        cls_kwargs: constructor arguments of each layer, or of all: `{"sliding_window": 4}`.

    Returns:
        The cache. Layers beyond the pairs are made by `update`, as in a cache made by `DynamicCache()`.

    Raises:
        CacheStructureError: layer classes where the release has no layers, or a list that is not as long as the pairs.
    """
    cache: Any = _required("DynamicCache")()
    if not probes.has_layers():
        if cls_layers is not None:
            raise CacheStructureError(
                f"this release keeps its caches as lists and no layers ({probes.release()}): leave out cls_layers"
            )
        for index, (key, value) in enumerate(pairs):
            cache.update(key, value, index)
        return cache
    classes = _for_each(pairs, cls_layers, _required("DynamicLayer"), "cls_layers")
    arguments = _for_each(pairs, cls_kwargs, {}, "cls_kwargs")
    cache.layers = [
        _layer(cls(**kw), key, value) for cls, kw, (key, value) in zip(classes, arguments, pairs, strict=False)
    ]
    return cache


def make_static_cache(pairs: Pairs, max_cache_len: int | None = None) -> Any:
    """A StaticCache of `max_cache_len` tokens (as many as the pairs hold, if not given) that begins with the pairs."""
    return _from_config("StaticCache", pairs, max_cache_len)


def make_sliding_window_cache(pairs: Pairs, sliding_window: int, max_cache_len: int | None = None) -> Any:
    """A static cache of sliding layers: SlidingWindowCache where the release has it, StaticCache since."""
    return _from_config("SlidingWindowCache", pairs, max_cache_len, sliding_window=sliding_window)


def make_hybrid_cache(
    pairs: Pairs, sliding_window: int, layer_types: Sequence[str] | None = None, max_cache_len: int | None = None
) -> Any:
    """A static cache in which layers differ: HybridCache where the release has it, StaticCache with mixed layers since.

    Args:
        pairs: keys and values of each layer.
        sliding_window: tokens that a sliding layer keeps.
        layer_types: `sliding_attention` or `full_attention` a layer; alternating if not given. Before 4.53 releases
            alternate whatever is given.
        max_cache_len: tokens that a full layer holds.
    """
    types = list(layer_types or ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(len(pairs))])
    return _from_config("HybridCache", pairs, max_cache_len, sliding_window=sliding_window, layer_types=types)


def make_encoder_decoder_cache(self_attention_cache: Any, cross_attention_cache: Any) -> Any:
    """An EncoderDecoderCache of any two caches. Cross layers that hold tokens count as filled."""
    return _required("EncoderDecoderCache")(self_attention_cache, cross_attention_cache)


def make_mamba_cache(pairs: Pairs) -> Any:
    """A MambaCache from (convolution state, state space state) of each layer.

    Shapes: (batch, intermediate size, kernel size) and (batch, intermediate size, state size).

    Raises:
        CacheStructureError: the release has no such class (it keeps these states in layers of a DynamicCache).
    """
    cls = probes.cache_class("MambaCache") or probes.model_class("mamba", "MambaCache")
    if cls is None:
        raise CacheStructureError(
            f"there is no MambaCache any more ({probes.release()}): use make_dynamic_cache with LinearAttentionLayer"
        )
    conv, state = pairs[0]
    config = importlib.import_module("transformers").MambaConfig(
        num_hidden_layers=len(pairs),
        state_size=state.shape[-1],
        conv_kernel=conv.shape[-1],
        hidden_size=conv.shape[1],
        intermediate_size=conv.shape[1],
        expand=1,
        vocab_size=4,
    )
    cache = cls(config, conv.shape[0], dtype=conv.dtype, device=conv.device)
    for index, (conv_state, ssm_state) in enumerate(pairs):
        cache.conv_states[index].copy_(conv_state)
        cache.ssm_states[index].copy_(ssm_state)
    return cache


def _layer(layer: Any, key: torch.Tensor, value: torch.Tensor) -> Any:
    """A growing layer with these tensors. More tokens than its window go through `update`, which drops the oldest."""
    window = getattr(layer, "sliding_window", None)
    if window is not None and key.shape[-2] > window:
        layer.update(key, value)
        return layer
    names = probes.allocation_parameters(type(layer))
    if names is not None:
        layer.lazy_initialization(*(key, value)[: len(names)])
    layer.keys, layer.values = key, value
    if isinstance(getattr(layer, "cumulative_length", None), int):
        layer.cumulative_length = key.shape[-2]
    return layer


def _from_config(
    name: str,
    pairs: Pairs,
    max_cache_len: int | None,
    sliding_window: int | None = None,
    layer_types: list[str] | None = None,
) -> Any:
    """A static cache through its constructor, which wants a config, filled through `update`."""
    key = pairs[0][0]
    length = max_cache_len or max(k.shape[-2] for k, _ in pairs)
    config = _config(pairs, length, sliding_window, layer_types)
    cls: Any = probes.cache_class(name) or _required("StaticCache")
    names = probes.parameters_of(cls.__init__)
    arguments: dict[str, Any] = {"config": config, "max_cache_len": length}
    if "max_batch_size" in names or "max_cache_len" not in names:
        arguments |= {"max_batch_size": key.shape[0], "device": key.device, "dtype": key.dtype}
    cache = cls(**arguments)
    for index, (keys, values) in enumerate(pairs):
        update(cache, keys, values, index)
    return cache


def _config(pairs: Pairs, length: int, sliding_window: int | None, layer_types: list[str] | None) -> Any:
    key = pairs[0][0]
    transformers = importlib.import_module("transformers")
    # Gemma 2 alternates windows on every release; Mistral has one on all layers; Llama has none.
    maker = transformers.LlamaConfig if sliding_window is None else transformers.MistralConfig
    config = (transformers.Gemma2Config if layer_types else maker)(
        num_hidden_layers=len(pairs),
        num_attention_heads=key.shape[1],
        num_key_value_heads=key.shape[1],
        head_dim=key.shape[-1],
        hidden_size=key.shape[1] * key.shape[-1],
        max_position_embeddings=length,
        vocab_size=4,
    )
    if sliding_window is not None:
        config.sliding_window = sliding_window
    if layer_types is not None:
        config.layer_types = layer_types
    return config


def _for_each(pairs: Pairs, given: Any, default: Any, name: str) -> list[Any]:
    if given is None or isinstance(given, (type, dict)):
        return [default if given is None else given] * len(pairs)
    if len(given) != len(pairs):
        raise CacheStructureError(
            f"{name} has {len(given)} entries for {len(pairs)} layers: give one a layer, or one for all"
        )
    return list(given)


def _required(name: str) -> type:
    cls = probes.cache_class(name)
    if cls is None:
        raise CacheStructureError(
            f"transformers.cache_utils has no {name} ({probes.release()}): see `kvconform doctor`"
        )
    return cls
