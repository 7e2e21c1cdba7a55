"""Whether two caches are the same in everything, asked fast enough for thousands of them.

`kvconform.checks.observe` reads a cache into a table, which says where two differ; `agree` walks both at
once and stops at the first difference.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from typing import Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks.errors import ExpectationError, expect
from kvconform.checks.observe import SCALARS, differences, in_slots, is_state, observe, same
from kvconform.checks.trees import expect_no_differences, expect_registered


def agree(got: Any, expected: Any, leaves: frozenset[int] | set[int] = frozenset()) -> bool:
    """Whether everything reachable is equal; tensors that hold states, or whose id is among `leaves`, are identical.

    Objects that are met twice in one are met twice in the other, at the same places.
    """
    return _Pairs(leaves).agree(got, expected)


class _Pairs:
    """Objects met so far, each with the one in its place."""

    def __init__(self, leaves: frozenset[int] | set[int]) -> None:
        self.leaves = leaves
        self.of_expected: dict[int, Any] = {}
        self.of_got: dict[int, Any] = {}

    def agree(self, got: Any, expected: Any) -> bool:
        cls = type(expected)
        if type(got) is not cls:
            return False
        if isinstance(expected, torch.Tensor):
            return self._tensors(got, expected)
        if isinstance(expected, SCALARS):
            return bool(got == expected) or (got != got and expected != expected)  # noqa: PLR0124 - NaN
        if isinstance(expected, type) or callable(expected):
            return self._named(got, expected)
        if cls is not tuple:
            # Which tuples are one object is Python's choice, and nobody can change one.
            if id(expected) in self.of_expected or id(got) in self.of_got:
                return self.of_expected.get(id(expected)) is got and self.of_got.get(id(got)) is expected
            self.of_expected[id(expected)], self.of_got[id(got)] = got, expected
        return self._parts(got, expected)

    def _tensors(self, got: torch.Tensor, expected: torch.Tensor) -> bool:
        if got is expected:
            return True
        if self.leaves and (is_state(expected) or id(expected) in self.leaves):
            return False
        if expected.dim():
            if id(expected) in self.of_expected or id(got) in self.of_got:
                return self.of_expected.get(id(expected)) is got
            self.of_expected[id(expected)], self.of_got[id(got)] = got, expected
        return same(got, expected) and _kind(got) == _kind(expected)

    def _named(self, got: Any, expected: Any) -> bool:
        """Classes and functions are the same by name: what is not told by that is compared as text of both."""
        if isinstance(expected, functools.partial) or not hasattr(expected, "__qualname__"):
            return not differences(observe(got), observe(expected))
        return bool((got.__module__, got.__qualname__) == (expected.__module__, expected.__qualname__))

    def _parts(self, got: Any, expected: Any) -> bool:
        mine, other = getattr(got, "__dict__", None), getattr(expected, "__dict__", None)
        if mine is None or other is None:
            return mine is other and self._items(got, expected)
        # Of attributes the order is when each was set, which nothing can observe.
        kept = in_slots(expected)
        if kept and not self.agree(in_slots(got), kept):
            return False
        same_names = mine.keys() == other.keys() and self._items(got, expected)
        return same_names and all(self.agree(mine[name], value) for name, value in other.items())

    def _items(self, got: Any, expected: Any) -> bool:
        """What a container holds, in its order; nothing for any other object."""
        if isinstance(expected, dict):
            return list(got) == list(expected) and all(self.agree(got[key], value) for key, value in expected.items())
        if isinstance(expected, (list, tuple)):
            return len(got) == len(expected) and all(map(self.agree, got, expected))
        return not isinstance(expected, (set, frozenset)) or bool(got == expected)


def _kind(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.requires_grad, tensor.is_inference(), tensor.is_contiguous()


def expect_same_cache(got: Any, expected: Any, what: str, leaves: Iterable[Any] = (), where: str = "") -> None:
    """Prove that `got` is `expected` in everything, its tensors by identity where `leaves` are given."""
    __tracebackhide__ = True
    held = {id(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)}
    if agree(got, expected, held):
        return
    seen, wanted = observe(got), observe(expected)
    expect_no_differences(differences(seen, wanted), what, where)
    for path, tensor in wanted.items():
        if held and isinstance(tensor, torch.Tensor) and (is_state(tensor) or id(tensor) in held):
            expect(seen[path] is tensor, f"{what}: {path} is a copy, expected the same tensor", where)
    for path, tensor in wanted.items():
        if isinstance(tensor, torch.Tensor):
            got_kind, kind = (type(seen[path]), *_kind(seen[path])), (type(tensor), *_kind(tensor))
            expect(got_kind == kind, f"{what}: {path} is {_told(got_kind)}, expected {_told(kind)}", where)
    raise ExpectationError(
        f"{what}: objects that were one are two, or were two and are one{f' [{where}]' if where else ''}"
    )


def _told(kind: tuple[Any, ...]) -> str:
    cls, gradient, inference, contiguous = kind
    return f"a {cls.__name__} (requires a gradient: {gradient}, of inference: {inference}, contiguous: {contiguous})"


def expect_whole(cache: Any, where: str = "") -> tuple[list[Any], Any, Any]:
    """Prove that a cache survives a round trip, and return leaves, spec and what came back.

    It comes back equal in everything and with the very tensors; flattening changed nothing in it; what came back
    flattens to the same leaves and an equal spec.
    """
    __tracebackhide__ = True
    expect_registered(cache, where)
    before = copy.deepcopy(cache, _memo(cache))
    marks = _marks(before)
    leaves, spec = pytree.tree_flatten(cache)
    held = [*leaves]
    restored = pytree.tree_unflatten(leaves, spec)
    expect_same_cache(cache, before, "flattening changed the original", leaves, where)
    expect(_marks(before) == marks, "a round trip wrote to the tensors of the original, or changed their layout", where)
    expect_same_cache(restored, cache, "lost in a round trip", leaves, where)
    again, spec_again = pytree.tree_flatten(restored)
    expect(spec_again == spec, f"the spec of the restored cache is {spec_again}, expected {spec}", where)
    expect_same_leaves(again, held, "the restored cache has other leaves", where)
    return leaves, spec, restored


def expect_same_leaves(got: list[Any], expected: list[Any], what: str, where: str = "") -> None:
    """Prove that two lists of leaves are the same objects, or equal numbers."""
    __tracebackhide__ = True
    if len(got) != len(expected):
        raise ExpectationError(f"{what}: {len(got)}, expected {len(expected)}{f' [{where}]' if where else ''}")
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        equal = one is other or (not isinstance(other, torch.Tensor) and type(one) is type(other) and one == other)
        expect(equal, f"{what}: leaf {index} is another", where)


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Every tensor that is reachable from a value, each once."""
    found: dict[int, torch.Tensor] = {}
    _collect(value, found, set())
    return [*found.values()]


def _collect(value: Any, found: dict[int, torch.Tensor], seen: set[int]) -> None:
    if isinstance(value, torch.Tensor):
        found[id(value)] = value
        return
    if isinstance(value, (*SCALARS, type)) or id(value) in seen:
        return
    seen.add(id(value))
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    for part in (*parts, *vars(value).values()) if hasattr(value, "__dict__") else parts:
        _collect(part, found, seen)


def _memo(value: Any) -> dict[int, Any]:
    """What makes `copy.deepcopy` copy every container and object, and keep the very tensors in them."""
    return {id(tensor): tensor for tensor in tensors_of(value)}


def _marks(value: Any) -> list[tuple[Any, ...]]:
    """What changes in a tensor that is written to or changed in place, or that is given or loses an attribute.

    torch keeps marks for its compiler as attributes of a tensor.
    """
    return [
        (
            *(id(one), _version(one), one.requires_grad, one.dtype, tuple(one.shape), one.stride()),
            one.storage_offset(),
            sorted((name, id(held)) for name, held in vars(one).items()),
        )
        for one in tensors_of(value)
    ]


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was written to; those of inference mode do not count."""
    return -1 if tensor.is_inference() else tensor._version
