"""What few put into a cache: kinds of values that JSON lacks, one object in two places, names that no code can write.

A registration may refuse them, by an error that whoever exports reads. It may not give back something else: a text
where a path was, an empty one where a text of the user's own kind was, two lists where there was one.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree

from kvconform.checks.caches import Example
from kvconform.checks.trees import expect_registered, read_spec
from kvconform.checks.whole import expect_same_cache


class Text(str):  # noqa: SLOT000 - it has attributes, as any object of a class of one's own
    """A user's kind of text."""


class Number(int):
    """A user's kind of number."""


class Fraction(float):
    """Another."""


class Items(list[Any]):
    """A user's kind of list."""


class Pair(NamedTuple):
    """A named tuple, which is equal to a plain one."""

    left: int
    right: int


class Flags(enum.Flag):
    """Flags, whose combinations have no name of their own."""

    ONE = 1
    TWO = 2


class Slotted:
    """An object with a slot beside its attributes."""

    __slots__ = ("__dict__", "kept")

    def __init__(self) -> None:
        """One of each."""
        self.kept, self.other = 1, 2


def _holding_itself() -> list[Any]:
    held: list[Any] = [1]
    held.append(held)
    return held


VALUES: dict[str, Callable[[], Any]] = {
    "text-of-its-own": lambda: Text("a"),
    "number-of-its-own": lambda: Number(3),
    "fraction-of-its-own": lambda: Fraction(0.5),
    "list-of-its-own": lambda: Items([1]),
    "named-tuple": lambda: Pair(1, 2),
    "flags": lambda: Flags.ONE | Flags.TWO,
    "slots": Slotted,
    "bytes": lambda: b"a",
    "bytearray": lambda: bytearray(b"a"),
    "complex": lambda: 1j,
    "range": lambda: range(3),
    "slice": lambda: slice(1, 3),
    "ellipsis": lambda: ...,
    "path": lambda: pathlib.PurePosixPath("a/b"),
    "date": lambda: dt.date(2020, 1, 2),
    "decimal": lambda: decimal.Decimal("0.1"),
    "counter": lambda: collections.Counter("aab"),
    "default-dict": lambda: collections.defaultdict(list, a=[1]),
    "deque": lambda: collections.deque([1, 2], maxlen=2),
    "size": lambda: torch.Size([1, 2]),
    "layout": lambda: torch.strided,
    "holding-itself": _holding_itself,
}
"""Values of an attribute."""


def _shared(cache: Any) -> None:
    cache.own_first = cache.own_second = [1]


def _shared_inside(cache: Any) -> None:
    held = {"a": 1}
    cache.own_first, cache.own_second = [held], (held, 2)


def _shared_between_layers(cache: Any) -> None:
    held = [1]
    for layer in vars(cache).get("layers") or (cache,):
        layer.own_held = held


def _named(name: str, value: Any) -> Callable[[Any], None]:
    return lambda cache: vars(cache).update({name: value})


PLACES: dict[str, Callable[[Any], None]] = {
    "one-list-in-two-attributes": _shared,
    "one-table-inside-two": _shared_inside,
    "one-list-in-all-layers": _shared_between_layers,
    "name-beyond-ascii": _named("gr\u00f6\u00dfe", 3),
    "name-with-a-dot": _named("own.name", 3),
    "name-with-a-dot-of-a-tensor": _named("own.name", torch.ones(2)),
    "name-with-an-equals-sign": _named("own=name", 3),
    "name-with-a-number": _named("0", [3]),
    "name-of-a-leaf": _named("key_D_0", torch.ones(2)),
    "no-name": _named("", 3),
}
"""What is done to a cache."""

NAMES = (*VALUES, *PLACES)


def expect_same_or_refused(name: str, example: Example) -> None:
    """Prove that a cache with such a thing in it comes back as it was, through the JSON text too, or is refused.

    It is refused when it is flattened, or when its spec is written: what was taken has to be given back.
    """
    __tracebackhide__ = True
    for put in _putting(VALUES[name]) if name in VALUES else (PLACES[name],):
        cache = example.build()
        expect_registered(cache, example.where)
        put(cache)
        where = f"{example.where}; {name}"
        try:
            leaves, spec = pytree.tree_flatten(cache)
        except Exception:  # noqa: BLE001, S112 - however a registration refuses
            continue
        expect_same_cache(pytree.tree_unflatten(leaves, spec), cache, "lost, and not refused", leaves, where)
        try:
            text = pytree.treespec_dumps(spec)
        except Exception:  # noqa: BLE001, S112 - however a registration refuses
            continue
        restored = pytree.tree_unflatten(leaves, read_spec(text))
        expect_same_cache(restored, cache, "lost through the JSON text, and not refused", leaves, where)


def _putting(value: Callable[[], Any]) -> tuple[Callable[[Any], None], ...]:
    """As an attribute, and inside one."""
    return (
        lambda cache: setattr(cache, "own_value", value()),
        lambda cache: setattr(cache, "own_value", [{"inside": value()}]),
    )
