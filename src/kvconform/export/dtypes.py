"""The names of dtypes in files: in safetensors, and the numbers of ONNX's TensorProto.DataType."""

from __future__ import annotations

import torch

__all__ = ["ONNX_NUMBERS", "SAFETENSORS_NAMES"]

_TABLE = (
    ("float64", "F64", 11),
    ("float32", "F32", 1),
    ("float16", "F16", 10),
    ("bfloat16", "BF16", 16),
    ("float8_e4m3fn", "F8_E4M3", 17),
    ("float8_e4m3fnuz", "F8_E4M3FNUZ", 18),
    ("float8_e5m2", "F8_E5M2", 19),
    ("float8_e5m2fnuz", "F8_E5M2FNUZ", 20),
    ("int64", "I64", 7),
    ("int32", "I32", 6),
    ("int16", "I16", 5),
    ("int8", "I8", 3),
    ("uint8", "U8", 2),
    ("uint16", "U16", 4),
    ("uint32", "U32", 12),
    ("uint64", "U64", 13),
    ("bool", "BOOL", 9),
    ("complex64", "C64", 14),
)
SAFETENSORS_NAMES = {dtype: name for torch_name, name, _ in _TABLE if (dtype := getattr(torch, torch_name, None))}
ONNX_NUMBERS = {dtype: number for torch_name, _, number in _TABLE if (dtype := getattr(torch, torch_name, None))}
