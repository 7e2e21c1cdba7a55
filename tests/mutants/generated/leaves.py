"""For each place of a leaf, by flatten or unflatten: another leaf, a copy, a detached tensor, a view, a layout."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from mutants.generated import Mutant
from mutants.generated.wiring import wire
from mutants.tools import on_leaves, on_values

_PLACES: dict[str, Callable[[int, int], bool]] = {
    "first": lambda index, count: index == 0,
    "second": lambda index, count: index == 1,
    "last": lambda index, count: index == count - 1,
    "keys": lambda index, count: index % 2 == 0,
    "middle": lambda index, count: index == count // 2,
}


def _in_place(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.requires_grad_(requires_grad=False) if tensor.is_leaf else tensor


_CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "copy": torch.clone,
    "detached": torch.Tensor.detach,
    "view": lambda tensor: tensor.view(tensor.shape) if tensor.is_contiguous() else tensor,
    "contiguous": torch.Tensor.contiguous,
    "no-gradient": _in_place,
    "plain": lambda tensor: tensor.as_subclass(torch.Tensor) if type(tensor) is not torch.Tensor else tensor,
}


def mutants() -> list[Mutant]:
    """One mutant a side, place and change."""
    found = []
    for side in ("flatten", "unflatten"):
        for place, chosen in _PLACES.items():
            for name, change in _CHANGES.items():
                planted = functools.partial(_change, side, chosen, change)
                found.append(Mutant(f"leaves/{side}-{place}/{name}", planted))
            found.append(Mutant(f"leaves/{side}-{place}/alias", functools.partial(_alias, side, chosen)))
    return found


def _wire(side: str, change: Callable[[list[Any]], list[Any]]) -> None:
    wire(**({"flatten": on_leaves(change)} if side == "flatten" else {"unflatten": on_values(change)}))


def _change(side: str, chosen: Callable[[int, int], bool], change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    def changed(leaves: list[Any]) -> list[Any]:
        count = len(leaves)
        return [
            change(leaf) if isinstance(leaf, torch.Tensor) and leaf.dim() and chosen(index, count) else leaf
            for index, leaf in enumerate(leaves)
        ]

    _wire(side, changed)


def _alias(side: str, chosen: Callable[[int, int], bool]) -> None:
    """A leaf is the one before it, where that has its shape."""

    def changed(leaves: list[Any]) -> list[Any]:
        found = list(leaves)
        for index, leaf in enumerate(leaves):
            before = leaves[index - 1]
            alike = isinstance(leaf, torch.Tensor) and isinstance(before, torch.Tensor) and leaf.shape == before.shape
            if alike and chosen(index, len(leaves)):
                found[index] = before
        return found

    _wire(side, changed)
