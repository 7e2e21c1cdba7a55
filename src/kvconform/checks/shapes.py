"""Dynamic shapes of a registered cache, derived from the subject's own registration.

`torch.export` wants, for a registered class, a list that mirrors what its flatten function returns. Which
dimensions vary is not assumed either:
the same structure built at another batch size and another length is flattened and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree

Build = Callable[[int, int], Any]


@dataclass(frozen=True)
class Dims:
    """What to ask for where the batch size varies, where the length varies, and for an int that varies."""

    batch: Any
    length: Any
    number: Any = None


def named(longest: int = 1024) -> Dims:
    """Named dimensions, as the documentation of `torch.export` has them.

    `longest` is the longest cache to allow for.

    Slicing at a window is specialised to one side of it, so a cache below its window cannot be asked for lengths past
    it.
    """
    return Dims(torch.export.Dim("batch", min=2, max=64), torch.export.Dim("length", min=2, max=longest), _hint("AUTO"))


def hinted(name: str) -> Dims:
    """`Dim.DYNAMIC` or `Dim.AUTO` everywhere; an int takes no other hint than the latter."""
    return Dims(_hint(name), _hint(name), _hint("AUTO"))


def _hint(name: str) -> Any:
    """A hint of `Dim`; `None` on releases of torch that have no hints."""
    return getattr(torch.export.Dim, name, None)


def dynamic_shapes(build: Build, batch: int, length: int, dims: Dims) -> Any:
    """The `dynamic_shapes` of `build(batch, length)`, in the structure that its flatten function gives."""
    example, other_batch, other_length = build(batch, length), build(batch + 1, length), build(batch, length + 1)
    leaves = pytree.tree_leaves(example)
    asked = [
        _leaf_shape(*three, dims)
        for three in zip(leaves, pytree.tree_leaves(other_batch), pytree.tree_leaves(other_length), strict=True)
    ]
    return _structure(example, iter(asked))


def varying(shape: Any) -> list[Any]:
    """The leaves of a result of `dynamic_shapes`, in order: mappings of dimensions, or what stands for an int."""
    if isinstance(shape, (list, tuple)):
        return [leaf for part in shape for leaf in varying(part)]
    if isinstance(shape, dict) and not all(isinstance(key, int) for key in shape):
        return [leaf for part in shape.values() for leaf in varying(part)]
    return [shape]


def _leaf_shape(leaf: Any, by_batch: Any, by_length: Any, dims: Dims) -> Any:
    if isinstance(leaf, torch.Tensor):
        asked = {}
        for index, size in enumerate(leaf.shape):
            if by_batch.shape[index] != size:
                asked[index] = dims.batch
            elif by_length.shape[index] != size:
                asked[index] = dims.length
        return asked
    return dims.number if not leaf == by_batch == by_length else None


def _structure(value: Any, asked: Iterator[Any]) -> Any:
    """Mirror what flattening gives, node by node, with `asked` in the places of the leaves."""
    kind = pytree._get_node_type(value)
    if kind not in pytree.SUPPORTED_NODES:
        return next(asked)
    children, context = pytree.SUPPORTED_NODES[kind].flatten_fn(value)
    mirrored = [_structure(child, asked) for child in children]
    if kind in (list, tuple):
        return kind(mirrored)
    return dict(zip(context, mirrored, strict=True)) if kind is dict else mirrored
