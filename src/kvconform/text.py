"""A short text for tensors, caches and what holds them, for messages and documents.

`T1s2x4x3x7` is a float32 tensor (1 is float32's number in ONNX) of shape (2, 4, 3, 7).
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["string_type"]

# The numbers of ONNX's TensorProto.DataType, which exporters print.
_NUMBERS = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
    torch.complex64: 14,
    torch.complex128: 15,
    torch.bfloat16: 16,
}


def string_type(obj: Any, with_shape: bool = False) -> str:
    """Describe an object by its types.

    Args:
        obj: a tensor, a cache, a container of them, or anything else.
        with_shape: add the shape of each tensor, `T1s2x3`; without it the number of dimensions, `T1r2`.

    Returns:
        `DynamicCache(DynamicLayer(T1s2x4x3x7, T1s2x4x3x7))`, for example.
    """
    if isinstance(obj, torch.Tensor):
        number = _NUMBERS.get(obj.dtype, str(obj.dtype).removeprefix("torch."))
        return f"T{number}s{'x'.join(map(str, obj.shape))}" if with_shape else f"T{number}r{obj.dim()}"
    if obj is None:
        return "None"
    if isinstance(obj, dict):
        inside = ",".join(f"{key}:{string_type(value, with_shape)}" for key, value in obj.items())
        return f"{'dict' if type(obj) is dict else type(obj).__name__}({inside})"
    if isinstance(obj, (list, tuple)):
        left, right = ("#", "") if not obj else ("[", "]") if isinstance(obj, list) else ("(", ")")
        return (
            f"{left}{','.join(string_type(value, with_shape) for value in obj)}{right}"
            if obj
            else f"{type(obj).__name__}()"
        )
    if hasattr(obj, "self_attention_cache"):
        parts = [string_type(c, with_shape) for c in (obj.self_attention_cache, obj.cross_attention_cache)]
        return f"{type(obj).__name__}[{', '.join(parts)}]"
    held = _cache_parts(obj, with_shape)
    return type(obj).__name__ if held is None else f"{type(obj).__name__}({', '.join(held)})"


def _cache_parts(cache: Any, with_shape: bool) -> list[str] | None:
    state = getattr(cache, "__dict__", {})
    if "layers" in state and isinstance(state["layers"], list):
        return [_layer(layer, with_shape) for layer in state["layers"]]
    if "key_cache" in state:
        pairs = zip(state["key_cache"], state["value_cache"], strict=False)
        return [f"{string_type(key, with_shape)}, {string_type(value, with_shape)}" for key, value in pairs]
    return None


def _layer(layer: Any, with_shape: bool) -> str:
    tensors = [
        string_type(value, with_shape) for value in (getattr(layer, "keys", None), getattr(layer, "values", None))
    ]
    return f"{type(layer).__name__}({', '.join(tensors)})"
