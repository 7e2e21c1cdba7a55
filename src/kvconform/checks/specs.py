"""What the spec of a cache tells: its structure, all of it, and no size that changes from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
import torch.fx._pytree as fx_pytree
import torch.utils._pytree as pytree

from kvconform.checks import making, trees
from kvconform.checks.cases import PLAIN, Case
from kvconform.checks.each import owners
from kvconform.checks.errors import expect
from kvconform.checks.needs import NotApplicableError
from kvconform.checks.observe import same
from kvconform.checks.trees import expect_registered
from kvconform.checks.whole import expect_same_cache, tensors_of

_BATCHES = (*range(1, 34), 64, 65, 128, 257)
_HEADS = range(1, 131)
_WIDTHS = (*range(1, 18), 32, 64, 65, 128, 257)


def expect_spec_without_sizes(case: Case, lengths: Sequence[int]) -> None:
    """Prove that caches which differ in batch, heads, widths and length only have one spec.

    Else a program that was exported at one size refuses another, or a batch or prompt of 1 is another structure than
    one of 2. A tensor of length 0 is a tensor: a cache that holds one has the spec of a longer one.

    Args:
        case: its cache has the structure.
        lengths: what its length can be without changing it.
    """
    __tracebackhide__ = True
    if not making.possible(case):
        raise NotApplicableError("this release has no such cache")
    first = making.build(case)
    expect_registered(first, str(case))
    expected = pytree.tree_flatten(first)[1]
    total, configured = case.length + case.room, case.kind not in ("dynamic", "pair")
    others = [replace(case, batch=batch) for batch in _BATCHES]
    others += [replace(case, length=length, room=total - length) for length in lengths]
    others += [replace(case, heads=heads) for heads in _HEADS]
    # A configuration refuses odd widths (rotary positions come in pairs).
    others += [replace(case, width=width, values=width) for width in _WIDTHS if width % 2 == 0 or not configured]
    for other in others:
        if making.possible(other):
            got = pytree.tree_flatten(making.build(other))[1]
            expect(got == expected, f"the spec of {other} is {got}, expected {expected}", str(case))


def expect_spec_tells(cases: Sequence[Case]) -> None:
    """Prove that caches of different structure differ in their specs, or in a number or shape among their leaves.

    Else an exported program takes a cache of another structure than its own, and computes with it.
    """
    __tracebackhide__ = True
    held = [case for case in cases if making.possible(case)]
    if len(held) < 2:  # noqa: PLR2004 - a pair
        raise NotApplicableError("this release has no two such caches")
    flat = []
    for case in held:
        cache = making.build(case)
        expect_registered(cache, str(case))
        leaves, spec = pytree.tree_flatten(cache)
        flat.append((case, spec, [_size(leaf) for leaf in leaves]))
    for index, (case, spec, sizes) in enumerate(flat):
        for other, other_spec, other_sizes in flat[:index]:
            same = spec == other_spec and sizes == other_sizes
            expect(not same, f"{case} and {other} have the same spec {spec}, expected two", "structures differ")


def _size(leaf: Any) -> Any:
    return tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else leaf


_LENGTHS = (*range(42), 63, 64, 65, 127, 128, 129, 255, 256, 257, 300)
_WINDOWED = replace(PLAIN, kind="configured", pattern="sliding")
_PAST = (*range(4, 42), 64, 65, 300, 301, 513)
SIZES: dict[str, tuple[Case, tuple[int, ...]]] = {
    "dynamic": (replace(PLAIN, layers=2), (*_LENGTHS, 301, 513, 1025)),
    "encoder-decoder": (replace(PLAIN, kind="pair", layers=2), _LENGTHS),
    "static": (replace(PLAIN, kind="static", layers=2, room=300), _LENGTHS),
    "below-window": (replace(_WINDOWED, window=400), _LENGTHS),
    "past-window": (replace(_WINDOWED, length=9), _PAST),
    "mixed-past-window": (
        replace(_WINDOWED, pattern="mixed", layers=2, length=9),
        _PAST,
    ),
}
"""Structures, each with the lengths that it has: crossing a window makes another."""

STRUCTURES: dict[str, tuple[Case, ...]] = {
    "layers": tuple(replace(PLAIN, layers=layers) for layers in (*range(1, 14), 33, 34)),
    "windows": tuple(
        replace(PLAIN, kind="configured", pattern="sliding", length=2, window=window) for window in (3, 4, 5, 8, 40, 41)
    ),
    "patterns": tuple(
        replace(PLAIN, kind="configured", layers=7, pattern=pattern, length=2)
        for pattern in ("full", "sliding", "mixed", "rare")
    ),
    "skipped": tuple(replace(PLAIN, layers=5, skipped=skipped) for skipped in ("none", "first", "odd", "last", "half")),
    "classes": tuple(
        replace(PLAIN, kind=kind, layers=2, room=1) for kind in ("dynamic", "static", "pair", "static-pair")
    ),
    "attributes": (PLAIN, replace(PLAIN, attributes="cache")),
}
"""Caches that differ in structure, by what they differ in."""

_PROMISES: tuple[Callable[[Any, str], None], ...] = (
    trees.expect_leaves_in_order,
    trees.expect_leaf_types,
    trees.expect_key_paths,
    trees.expect_json_spec,
    trees.expect_spec_copies,
    trees.expect_fx_agrees,
    trees.expect_tree_map,
)


def expect_promises(case: Case) -> None:
    """Prove what else a node promises: order and types of leaves, key paths, specs, torch.fx and `tree_map`."""
    __tracebackhide__ = True
    for expect_promise in _PROMISES:
        expect_promise(making.build(case), "")


def expect_same_spec_every_time(enter: Callable[[], AbstractContextManager[Any]], cases: Sequence[Case]) -> None:
    """Prove that a spec which was made in one context is good in the next, for those cases that this release can hold.

    Args:
        enter: gives the context of the subject.
        cases: the caches to ask about.
    """
    __tracebackhide__ = True
    held = [case for case in cases if making.possible(case)]
    flown = []
    with enter():
        for case in held:
            cache = making.build(case)
            expect_registered(cache, str(case))
            flown.append((case, cache, *pytree.tree_flatten(cache)))
    with enter():
        for case, cache, leaves, spec in reversed(flown):
            again = pytree.tree_flatten(cache)[1]
            expect(again == spec, f"the spec is {again} when the context is entered again, expected {spec}", str(case))
            restored = pytree.tree_unflatten(leaves, spec)
            expect_same_cache(restored, cache, "lost by a spec of the context before", leaves, str(case))


def expect_spec_in_any_order(case: Case) -> None:
    """Prove that the spec, and the order of the leaves, do not tell in which order the attributes were set.

    An operation may set one anew, and a program that was exported before it would refuse the cache.
    """
    __tracebackhide__ = True
    cache, other = making.build(case), making.build(case)
    for owner in owners(other):
        state = dict(reversed(vars(owner).items()))
        vars(owner).clear()
        vars(owner).update(state)
    expect_registered(cache, str(case))
    leaves, expected = pytree.tree_flatten(cache)
    others, spec = pytree.tree_flatten(other)
    expect(spec == expected, f"with attributes set in another order the spec is {spec}, expected {expected}")
    differing = [index for index, pair in enumerate(zip(leaves, others, strict=True)) if not same(*pair)]
    expect(not differing, f"with attributes set in another order leaf {differing[:1]} is another one")


def register_plainly(cls: type) -> None:
    """Register a class as a user may have done: the keys and values of it are leaves, and the cache is the context.

    For what a registration makes of it; nobody should export with such a node.
    """

    def flatten(cache: Any) -> tuple[list[Any], Any]:
        return [tensor for tensor in tensors_of(cache) if tensor.dim() > 1], cache

    for table in (pytree.SUPPORTED_NODES, pytree.SUPPORTED_SERIALIZED_TYPES, fx_pytree.SUPPORTED_NODES):
        table.pop(cls, None)
    for name in [name for name, known in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.items() if known is cls]:
        del pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE[name]
    pytree._private_register_pytree_node(  # the public function also asks optree, which cannot be taken back
        cls, flatten, lambda _, cache: cache, serialized_type_name=f"own.{cls.__name__}"
    )
    fx_pytree.register_pytree_flatten_spec(cls, lambda cache, _: flatten(cache)[0])
