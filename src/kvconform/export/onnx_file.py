"""Tensors in an ONNX file: a model whose outputs are its initializers, so that any runtime can give them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kvconform.export.dtypes import ONNX_NUMBERS
from kvconform.export.errors import SavedInputsError
from kvconform.export.tensor_file import bytes_of, from_bytes

__all__ = ["read", "write"]

# Old enough for every runtime that reads files at all, new enough for the 8-bit floats.
_IR_VERSION, _OPSET = 9, 19
_DTYPES = {number: dtype for dtype, number in ONNX_NUMBERS.items()}


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and strings.

    Raises:
        SavedInputsError: onnx is not installed, or a dtype has no number in ONNX.
    """
    onnx = _onnx(path)
    model = onnx.ModelProto(ir_version=_IR_VERSION, producer_name="kvconform")
    model.opset_import.add(domain="", version=_OPSET)
    model.graph.name = "tensors"
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    for name, tensor in tensors.items():
        if tensor.dtype not in ONNX_NUMBERS:
            raise SavedInputsError(f"a tensor of dtype {tensor.dtype} cannot be written to an ONNX file")
        number = ONNX_NUMBERS[tensor.dtype]
        model.graph.initializer.add(name=name, data_type=number, dims=list(tensor.shape), raw_data=bytes_of(tensor))
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, number, list(tensor.shape)))
    try:
        path.write_bytes(model.SerializeToString())
    except ValueError as error:
        # One protobuf holds two gigabytes.
        raise SavedInputsError(
            f"too much for one ONNX file ({error}): give a path that ends with .safetensors"
        ) from error


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read tensors and strings.

    Raises:
        SavedInputsError: onnx is not installed, or the file is damaged.
    """
    onnx = _onnx(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        tensors = {
            one.name: from_bytes(one.raw_data, _DTYPES[one.data_type], list(one.dims))
            for one in model.graph.initializer
        }
    except Exception as error:
        # protobuf raises classes of its own.
        raise SavedInputsError(f"{path} is no ONNX file of tensors ({type(error).__name__}: {error})") from error
    return tensors, {entry.key: entry.value for entry in model.metadata_props}


def _onnx(path: Path) -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise SavedInputsError(
            f"{path.name} is an ONNX file, and onnx is not installed: python -m pip install onnx, or give a path that "
            "ends with .safetensors"
        ) from error
    return onnx
