"""Reading and writing safetensors files: eight bytes of length, a JSON header, raw bytes.

Written here and not with the package safetensors, which refuses tensors that share memory and several dtypes.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import struct
from pathlib import Path
from typing import Any

import torch

from kvconform.export.dtypes import SAFETENSORS_NAMES
from kvconform.export.errors import SavedInputsError

__all__ = ["bytes_of", "from_bytes", "read", "write"]

_METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")
_DTYPES = {name: dtype for dtype, name in SAFETENSORS_NAMES.items()}


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and strings.

    Raises:
        SavedInputsError: a dtype has no name in the format.
    """
    header: dict[str, Any] = {_METADATA: metadata}
    offset = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in SAFETENSORS_NAMES:
            raise SavedInputsError(f"a tensor of dtype {tensor.dtype} cannot be written to a safetensors file")
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": SAFETENSORS_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    # The format aligns the data to eight bytes with spaces.
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(_LENGTH.pack(len(text)))
        file.write(text)
        for tensor in tensors.values():
            file.write(bytes_of(tensor))


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read tensors and strings.

    Raises:
        SavedInputsError: the file is no safetensors file, or is cut short.
    """
    try:
        # Mapped, not read: a model is in memory once and not twice.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            (length,) = _LENGTH.unpack_from(data)
            begin = _LENGTH.size + length
            header = json.loads(data[_LENGTH.size : begin])
            metadata = header.pop(_METADATA, {})
            tensors = {name: _tensor(entry, data, begin) for name, entry in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise SavedInputsError(
            f"{path} is no safetensors file, or a damaged one ({type(error).__name__}: {error}): write it again"
        ) from error
    return tensors, metadata


def _tensor(entry: dict[str, Any], data: mmap.mmap, begin: int) -> torch.Tensor:
    first, last = entry["data_offsets"]
    dtype = _DTYPES[entry["dtype"]]
    size = len(data) - begin
    if not 0 <= first <= last <= size:
        raise ValueError(f"data from {first} to {last} of {size} bytes")
    return from_bytes(data[begin + first : begin + last], dtype, entry["shape"])


def bytes_of(tensor: torch.Tensor) -> bytes:
    """The elements of a tensor, in order, little-endian."""
    whole = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    size = whole.numel() * whole.element_size()
    return ctypes.string_at(whole.data_ptr(), size) if size else b""


def from_bytes(data: bytes, dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
    """A tensor of these elements, with memory of its own.

    Raises:
        ValueError: there are too few bytes, or too many.
    """
    made = torch.empty(shape, dtype=dtype)
    size = made.numel() * made.element_size()
    if size != len(data):
        raise ValueError(f"{len(data)} bytes for {tuple(shape)} of {dtype}, expected {size}")
    if size:
        ctypes.memmove(made.data_ptr(), data, size)
    return made
