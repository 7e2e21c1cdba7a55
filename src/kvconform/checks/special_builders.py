"""Builds the example caches of :mod:`kvconform.checks.special`, in the manner of :mod:`kvconform.checks.builders`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from kvconform.checks.builders import config, fill, mixed, now, typed
from kvconform.checks.needs import lookup


def linear(  # noqa: PLR0913 - a builder or check of many settings
    batch: int,
    length: int,
    dtype: torch.dtype,
    device: str,
    *,
    types: list[str],
    of: Callable[[Any], Any] | None = None,
    parts: tuple[str, ...] = ("conv", "recurrent"),
    count: int = 1,
    recorded: bool = False,
) -> Any:
    """A cache with linear-attention states in every layer that holds any, and keys and values where it holds those.

    Args:
        batch: of all tensors.
        length: of keys and values.
        dtype: of all tensors.
        device: of all tensors.
        types: the type of each layer.
        of: makes a cache of a configuration; a DynamicCache where it is left out.
        parts: which linear-attention states are written.
        count: how many of each there are in a layer.
        recorded: whether the past is recorded, so that a crop can go back.
    """
    cache = (of or dynamic_of)(typed(types, **({"number_of_conv_states": count} if count > 1 else {})))
    if recorded:
        cache.activate_past_recording()
    generator = torch.Generator().manual_seed(7)
    shapes = {"conv": (batch, 6, 4), "recurrent": (batch, 2, 3, 5)}
    for layer in [index for index, name in enumerate(types) if name in ("conv", "linear_attention", *_HYBRID)]:
        for state in range(count):
            which = {"state_idx": state} if count > 1 else {}
            for part in parts:
                tensor = torch.randn(shapes[part], generator=generator).to(device=device, dtype=dtype)
                getattr(cache, f"update_{part}_state")(tensor, layer, **which)
    return fill(cache, batch, length, [i for i, name in enumerate(types) if name in _ATTENTION], dtype, device)


_HYBRID = ("hybrid", "hybrid_sliding")
_ATTENTION = ("full_attention", "sliding_attention", *_HYBRID)


def indexed(  # noqa: PLR0913 - a builder or check of many settings
    batch: int, length: int, dtype: torch.dtype, device: str, *, of: Callable[[Any], Any], positions: bool = False
) -> Any:
    """Sparse attention's layers, which hold the keys of an indexer too: (batch, length, width).

    With positions, two layers hold those of the indexer's keys as well: (dimensions, batch, length).
    """
    # The layer type had another name until 5.17.
    known = lookup("transformers.cache_utils:DYNAMIC_LAYER_TYPE_MAPPING") or {}
    name = "indexed_attention" if "indexed_attention" in known else "deepseek_sparse_attention"
    cache = of(typed([name, "full_attention", *([name] if positions else [])]))
    fill(cache, batch, length, [*range(len(cache.layers))], dtype, device)
    generator = torch.Generator().manual_seed(9)
    for number, layer in enumerate(layer for layer in cache.layers if hasattr(layer, "update_indexer")):
        layer.update_indexer(torch.randn(batch, length, 4, generator=generator).to(device=device, dtype=dtype))
        if positions:
            # As a model does that has rotary positions of three dimensions.
            counted = torch.arange(3 * batch * length, device=device).reshape(3, batch, length)
            layer.indexer_position_ids = counted + number
    return cache


def dynamic_of(made: Any) -> Any:
    """A DynamicCache of a configuration."""
    return lookup("transformers.cache_utils:DynamicCache")(config=made)


def static_of(made: Any) -> Any:
    """A StaticCache of a configuration."""
    return lookup("transformers.cache_utils:StaticCache")(config=made, max_cache_len=now().maximum)


def without_cache(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    """A configuration whose second layer keeps nothing."""
    return fill(dynamic_of(typed(["full_attention", "dummy"])), batch, length, [0], dtype, device)


def quantized(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    """A QuantizedCache of 8-bit floats, which calibrates itself on the first two tokens."""
    return fill(
        lookup("transformers.cache_utils:QuantizedCache")("fp8", config()), batch, length, [0, 1], dtype, device, 2
    )


@functools.cache
def quantizing() -> Any:
    """A user's QuantizedCache of two lists, with a quantizer of its own; None where a cache holds layers (4.54).

    The release's own subclasses want a package each (quanto, HQQ), and every one of them is such a subclass. Keys and
    values have scales along axes of their own, as KIVI has it.
    """
    base = lookup("transformers.cache_utils:QuantizedCache")
    if base is None or not hasattr(base, "_dequantize"):
        return None

    # Named in its module from the start, where pickle finds it, and not after this function.
    names = {"__module__": __name__, "__qualname__": "ScaledCache", "__doc__": "A user's quantized cache."}
    made = type("ScaledCache", (base,), {**names, "_quantize": _quantize, "_dequantize": _dequantize})
    globals()[made.__name__] = made
    return made


def _quantize(_: Any, tensor: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    scale = tensor.abs().amax(dim=axis, keepdim=True).clamp(min=1e-6) / 127
    return (tensor / scale).round().to(torch.int8), scale


def _dequantize(_: Any, q_tensor: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    quantized, scale = q_tensor
    return quantized.to(scale.dtype) * scale


def scaled(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    """A cache of :func:`quantizing`: what came first is quantized, what came since is not yet."""
    made = lookup("transformers.cache_utils:QuantizedCacheConfig")(
        backend="scaled",
        nbits=8,
        axis_key=2,
        axis_value=3,
        residual_length=16,
        compute_dtype=torch.bfloat16,
        device=device,
    )
    return fill(quantizing()(made), batch, length, [0, 1], dtype, device, 3)


def mamba(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:  # noqa: ARG001 - a builder
    """A MambaCache of three layers: states of convolutions, and of state spaces, whatever the length."""
    import transformers

    made = transformers.MambaConfig(num_hidden_layers=3, hidden_size=6, state_size=5, conv_kernel=4, vocab_size=8)
    cache = lookup(MAMBA)(made, batch, dtype, torch.device(device))
    generator = torch.Generator().manual_seed(11)
    for layer in range(3):
        for held in (cache.conv_states[layer], cache.ssm_states[layer]):
            held.copy_(torch.randn(held.shape, generator=generator))
    return cache


MAMBA = "transformers.models.mamba.modeling_mamba:MambaCache"
"""Where the class is found on every release that has it; until 4.53 it was defined among the caches."""


def sink(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    """Attention sinks: the first 2 tokens and the last 4, a token at a time past that."""
    cache = lookup("transformers.cache_utils:SinkCache")(window_length=6, num_sink_tokens=2)
    return fill(cache, batch, length, [0, 1], dtype, device, 1)


def draft(  # noqa: PLR0913 - a builder or check of many settings
    batch: int,
    length: int,
    dtype: torch.dtype,
    device: str,
    *,
    name: str,
    make: Callable[[], Any] | None = None,
) -> Any:
    """A cache of a draft model, whose queries are ahead of its keys."""
    settings = {} if make is None else {"config": make()}
    cache = fill(lookup(f"transformers.cache_utils:{name}")(**settings), batch, length, [0, 1], dtype, device)
    if name == "DFlashCache":
        cache.set_previous_accepted_tokens(2)
    return cache


def recorded(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
    """Windows whose layers keep what has left them until the next crop, as assisted decoding needs."""
    cache = dynamic_of(mixed())
    cache.activate_past_recording()
    return fill(cache, batch, length, [0, 1, 2], dtype, device)
