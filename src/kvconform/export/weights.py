"""The weights of several programs in one file, each once: a model in memory has them once, and so has a bundle.

Programs of one model hold the same tensors. While their `.pt2` files are written, tensors of one element, stretched to
the same shape, stand in for them; torch's loader finds every name, and the weights take their places afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kvconform.export import tensor_file
from kvconform.export.dtypes import SAFETENSORS_NAMES
from kvconform.export.errors import BundleError, SavedInputsError

__all__ = ["Names", "attach", "read", "stand_ins", "stood_in", "together", "write"]

Names = dict[str, str]
"""For each weight of a program, its name in the file."""
_Exported = torch.export.ExportedProgram
_BUNDLE = "kvconform.bundle"


def together(programs: Iterable[_Exported]) -> tuple[dict[str, torch.Tensor], list[Names]]:
    """Every weight once, by the name that the first program has for it, and for each program its names.

    Tied weights of one program are one. A tensor whose elements do not stand one after another, or of a dtype without a
    name in the format, stays in its program.
    """
    tensors: dict[str, torch.Tensor] = {}
    known: dict[tuple[object, ...], str] = {}
    names: list[Names] = []
    for exported in programs:
        found: Names = {}
        for name, tensor in exported.state_dict.items():
            if not _fits(tensor):
                continue
            same = _identity(tensor)
            if same not in known:
                known[same] = _free(name, tensors)
                tensors[known[same]] = tensor
            found[name] = known[same]
        names.append(found)
    return tensors, names


def _fits(tensor: torch.Tensor) -> bool:
    plain = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_conj() or tensor.is_neg())
    return plain and tensor.numel() > 1 and tensor.is_contiguous() and tensor.dtype in SAFETENSORS_NAMES


def _identity(tensor: torch.Tensor) -> tuple[object, ...]:
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape))


def _free(name: str, taken: Iterable[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    return free


def write(path: Path, tensors: dict[str, torch.Tensor], bundle: str) -> None:
    """Write them, and to which bundle they belong: those of another one may have the same names and shapes."""
    tensor_file.write(path, tensors, {_BUNDLE: bundle})


def read(path: Path, bundle: str) -> dict[str, torch.Tensor]:
    """The tensors of a file.

    Raises:
        BundleError: it is missing, cut off, damaged, or of another bundle.
    """
    if not path.is_file():
        raise BundleError(f"{path} is missing: copy the whole folder, or save the bundle again")
    try:
        tensors, about = tensor_file.read(path)
    except SavedInputsError as error:
        raise BundleError(f"{path} holds no weights, or damaged ones: save the bundle again ({error})") from error
    if about.get(_BUNDLE) != bundle:
        raise BundleError(f"{path} belongs to another bundle: copy the whole folder, or save the bundle again")
    return tensors


@contextmanager
def stand_ins(exported: _Exported, names: Names) -> Iterator[None]:
    """Have a program hold one element for each of these weights while it is written."""
    held = dict(exported.state_dict)
    try:
        for name in names:
            exported.state_dict[name] = _like(held[name], held[name].detach().new_zeros(()).expand(held[name].shape))
        yield
    finally:
        exported.state_dict.update(held)


def stood_in(exported: _Exported) -> set[str]:
    """The names for which a loaded program has one element in the place of a whole tensor.

    torch saves of a stretched tensor the storage, so that it is stretched again when it is loaded.
    """
    return {
        name
        for name, tensor in exported.state_dict.items()
        if tensor.numel() > 1 and tensor.layout == torch.strided and not any(tensor.stride())
    }


def attach(exported: _Exported, names: Names, tensors: dict[str, torch.Tensor]) -> None:
    """Give a loaded program its weights, those that are the same tensor for all programs.

    Raises:
        BundleError: a weight is missing, or of another shape or dtype than the program's.
    """
    same: dict[tuple[str, bool, bool], torch.Tensor] = {}
    for name, stored in names.items():
        held, tensor = exported.state_dict.get(name), tensors.get(stored)
        if held is None or tensor is None or (held.shape, held.dtype) != (tensor.shape, tensor.dtype):
            raise BundleError(
                f"the weights do not fit the programs ({name} is missing, or has another shape or dtype): copy the "
                "whole folder, or save the bundle again"
            )
        if held.device != tensor.device:
            # Loaded once for all programs: the next one finds it there.
            tensors[stored] = tensor = tensor.to(held.device)
        kind = (stored, isinstance(held, torch.nn.Parameter), held.requires_grad)
        exported.state_dict[name] = same.setdefault(kind, _like(held, tensor))


def _like(held: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as a parameter where the other is one: torch asks which of both a name of a program is."""
    if not isinstance(held, torch.nn.Parameter):
        return tensor
    return torch.nn.Parameter(tensor, requires_grad=held.requires_grad)
