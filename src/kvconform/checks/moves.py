"""Caches whose leaves were moved to another type or device by `tree_map`: everything that tells of it follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks.observe import differences, observe, same
from kvconform.checks.trees import expect_no_differences, expect_registered

Move = Callable[[torch.Tensor], torch.Tensor]


def to_type(dtype: torch.dtype) -> Move:
    """Cast tensors of floats, those of 8 bits aside, which are quantized."""
    return lambda tensor: tensor.to(dtype) if tensor.is_floating_point() and tensor.element_size() > 1 else tensor


def to_device(device: str) -> Move:
    """Move every tensor."""
    return lambda tensor: tensor.to(device)


def to_fake(device: str) -> Move:
    """Allocate anew: torch asks the driver for some `.to("cuda")` and `empty_like` even of a fake tensor."""
    return lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


def expect_moved(cache: Any, move: Move, where: str = "") -> Any:
    """Prove that `tree_map` moves a cache as a whole: each tensor, and each type or device that an attribute tells.

    Whatever tells the type or the device of a cache's tensors tells the new one; everything else is as before.
    """
    __tracebackhide__ = True
    expect_registered(cache, where)
    before = observe(cache)
    leaves = {id(leaf) for leaf in pytree.tree_leaves(cache)}
    moved = pytree.tree_map_only(torch.Tensor, move, cache)
    after = observe(moved)
    held = [atom for atom in before.values() if isinstance(atom, torch.Tensor) and atom.dim() > 0]
    expected = {path: _moved_atom(atom, move, held) for path, atom in before.items()}
    # What a layer has before its first tensors cannot follow them: it does when they come.
    owners = {path.rpartition(".")[0] for path, atom in before.items() if id(atom) in leaves}
    free = [path for path, atom in before.items() if id(atom) not in leaves and path.rpartition(".")[0] not in owners]
    for path in free:
        if path in after and same(after[path], before[path]):
            expected[path] = before[path]
    expect_no_differences(differences(after, expected), "wrong after the move", where)
    expect_no_differences(differences(observe(cache), before), "the move changed the original", where)
    return moved


def _moved_atom(atom: Any, move: Move, held: list[torch.Tensor]) -> Any:
    if isinstance(atom, torch.Tensor):
        return move(atom)
    if isinstance(atom, torch.dtype):
        return next((move(tensor).dtype for tensor in held if tensor.dtype == atom), atom)
    if isinstance(atom, torch.device):
        return next((move(tensor).device for tensor in held if tensor.device == atom), atom)
    return atom
