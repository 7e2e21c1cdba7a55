"""Reads everything that is in a cache, so that what a round trip loses cannot go unseen.

Nothing here knows a cache class: the reader walks `__dict__`, slots, lists, tuples, sets and mappings of whatever it is
given, on the list path and
on the layers path alike. That makes it an oracle which shares no assumption with the registration it judges.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MemberDescriptorType
from typing import Any, TypeGuard

import torch

SCALARS = (type(None), bool, int, float, str, bytes, torch.dtype, torch.device, torch.Size, torch.layout, enum.Enum)


# The states of a MambaCache have no heads; counters and positions have fewer dimensions.
_STATE_DIMENSIONS = 3


def is_state(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether this is a tensor of states (keys, values, what else a layer remembers), which no round trip may copy."""
    return isinstance(value, torch.Tensor) and value.dim() >= _STATE_DIMENSIONS


@dataclass(frozen=True)
class Difference:
    """One place where two states differ."""

    path: str
    got: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path} is {self.got}, expected {self.expected}"


def observe(value: Any) -> dict[str, Any]:
    """Every atom reachable from `value`, by path: `{".layers[0].keys": tensor, ...}`.

    Classes of objects and containers appear under `path (class)`; something met twice is a reference to its first
    path.
    """
    atoms: dict[str, Any] = {}
    _walk(value, "", atoms, {})
    return atoms


def _walk(value: Any, path: str, atoms: dict[str, Any], seen: dict[int, tuple[str, Any]]) -> None:
    if isinstance(value, SCALARS):
        atoms[path] = value
        return
    if isinstance(value, type):
        atoms[path] = f"class {value.__module__}.{value.__qualname__}"
        return
    if isinstance(value, torch.Tensor) and value.dim() == 0:
        # A number by another name: whether two layers share one is seen by what they do with it.
        atoms[path] = value
        return
    if id(value) in seen:
        atoms[path] = f"the same object as {seen[id(value)][0] or 'the cache'}"
        return
    if type(value) is not tuple:
        # The value is kept beside its path: an id is only unique while its object lives. Which tuples are one object is
        # Python's choice, and nobody can change one.
        seen[id(value)] = (path, value)
    if isinstance(value, torch.Tensor):
        atoms[path] = value
        return
    for step, child in _children(value, path, atoms):
        _walk(child, f"{path}{step}", atoms, seen)


def _children(value: Any, path: str, atoms: dict[str, Any]) -> list[tuple[str, Any]]:
    """The parts of a container or object; its class becomes an atom of its own."""
    cls = type(value)
    atoms[f"{path} (class)"] = f"{cls.__module__}.{cls.__qualname__}"
    found: list[tuple[str, Any]] = []
    if isinstance(value, functools.partial):
        return [(".func", value.func), (".args", value.args), (".keywords", value.keywords)]
    if isinstance(value, Mapping):
        atoms[f"{path} (keys)"] = [*map(repr, value)]
        found += [(f"[{key!r}]", value[key]) for key in value]
    elif isinstance(value, (list, tuple)):
        atoms[f"{path} (length)"] = len(value)
        found += [(f"[{index}]", item) for index, item in enumerate(value)]
    elif isinstance(value, (set, frozenset)):
        atoms[f"{path} (items)"] = sorted(map(repr, value))
    elif callable(value) and hasattr(value, "__qualname__"):
        atoms[path] = f"function {value.__module__}.{value.__qualname__}"
        return []
    attributes = getattr(value, "__dict__", None)
    if attributes and not isinstance(value, Mapping):
        found += [(f".{name}", child) for name, child in attributes.items()]
    found += [(f".{name}", child) for name, child in in_slots(value).items()]
    return found


def in_slots(value: Any) -> dict[str, Any]:
    """What an object keeps in slots (`__slots__`), beside its `__dict__`."""
    return {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}


_SLOTS: dict[type, tuple[str, ...]] = {}


def _slots(cls: type) -> tuple[str, ...]:
    if cls not in _SLOTS:
        members = [item for base in cls.__mro__ if base.__module__ != "builtins" for item in vars(base).items()]
        _SLOTS[cls] = tuple(name for name, member in members if isinstance(member, MemberDescriptorType))
    return _SLOTS[cls]


def essence(atoms: dict[str, Any]) -> dict[str, Any]:
    """What a cache computes with: everything but references to classes and functions.

    A program's result is judged by this: what a registration loses of the rest is told once, by the round-trip checks.
    """
    return {
        path: atom
        for path, atom in atoms.items()
        if not (isinstance(atom, str) and atom.startswith(("class ", "function ")))
    }


def differences(got: dict[str, Any], expected: dict[str, Any], tolerance: float = 0.0) -> list[Difference]:
    """Where two observations differ: lost, added and changed atoms, in order of path.

    Floats may differ by `tolerance`.
    """
    found = []
    for path in sorted({*got, *expected}):
        if path not in got:
            found.append(Difference(path, "lost", describe(expected[path])))
        elif path not in expected:
            found.append(Difference(path, describe(got[path]), "absent"))
        elif not same(got[path], expected[path], tolerance):
            found.append(Difference(path, describe(got[path], expected[path]), describe(expected[path])))
    return found


def same(got: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether two atoms are equal in type and value; tensors in dtype, device, shape and elements; NaN equals NaN."""
    if isinstance(expected, torch.Tensor) or isinstance(got, torch.Tensor):
        return (
            isinstance(got, torch.Tensor)
            and isinstance(expected, torch.Tensor)
            and _same_tensor(got, expected, tolerance)
        )
    if type(got) is not type(expected):
        return False
    return bool(got == expected) or bool(got != got and expected != expected)  # noqa: PLR0124 - NaN


def _same_tensor(got: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    if (got.dtype, got.device, got.shape, got.layout) != (
        expected.dtype,
        expected.device,
        expected.shape,
        expected.layout,
    ):
        return False
    if got is expected or _is_fake(got) or _is_fake(expected):
        # A fake tensor beside a real one is a fault: it was made under a mode that has ended.
        return _is_fake(got) == _is_fake(expected)
    if tolerance and expected.is_floating_point():
        return torch.allclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if expected.is_floating_point() and expected.element_size() == 1:
        # float8 has no nan_to_num; float32 holds each of its values.
        got, expected = got.float(), expected.float()
    return bool(torch.equal(torch.nan_to_num(got), torch.nan_to_num(expected)))


def _is_fake(tensor: torch.Tensor) -> bool:
    """Fake and meta tensors have no elements to compare."""
    return tensor.device.type == "meta" or type(tensor).__name__ in {"FakeTensor", "FunctionalTensor"}


def describe(value: Any, beside: Any = None) -> str:
    """A short name of an atom: a tensor by dtype and shape, and by its first element that differs from `beside`."""
    if not isinstance(value, torch.Tensor):
        text = repr(value)
        return text if len(text) <= 120 else f"{text[:120]}..."  # noqa: PLR2004
    name = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if value.device.type != "cpu":
        name += f" on {value.device}"
    if _is_fake(value):
        return name
    if value.dim() == 0:
        return f"{name} {value.item()}"
    if (
        isinstance(beside, torch.Tensor)
        and beside.shape == value.shape
        and not _is_fake(beside)
        and beside.dtype == value.dtype
    ):
        unequal = (value != beside).nonzero()
        if len(unequal):
            place = tuple(unequal[0].tolist())
            return f"{name} with {value[place].item():g} at {list(place)}"
    return name
