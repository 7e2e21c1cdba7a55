"""Cases: caches described by a few plain values each, drawn at random from fixed seeds and made smaller when one fails.

A registration may go wrong in one combination of sizes, types and layers only. Nobody thinks of all of them, so that
thousands are drawn; what a failing check reports is the plainest case that still fails. How a case becomes a cache:
`kvconform.checks.making`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """One cache. The default of each field is its plainest value, which shrinking tries first."""

    kind: str = "dynamic"
    """A name of `kvconform.checks.making` (dynamic, configured, static, pair, ...), or of an example cache."""
    layers: int = 1
    batch: int = 2
    heads: int = 2
    length: int = 3
    width: int = 4
    """The width of keys, elements a head."""
    values: int = 4
    """The width of values, which models with latent attention (MLA) have another of."""
    uneven: str = "no"
    """Whether each layer has heads and widths of its own, as some models' have: no, yes."""
    pattern: str = "full"
    """Which layers have a window: full, sliding, mixed (every other one), rare (every sixth one has none)."""
    window: int = 4
    windows: str = "one"
    """Whether layers with a window have that one, or each the next larger (each)."""
    room: int = 4
    """How many more tokens a static cache holds."""
    skipped: str = "none"
    """Layers that nothing is written to: none, first, odd, last, half (the second half)."""
    dtype: str = "float32"
    dtypes: str = "one"
    """one for all layers, each (layers take turns through three types), or parts (values of another than keys)."""
    tensors: str = "plain"
    """How keys and values lie in memory and what they require: see :data:`kvconform.checks.tensors.TENSORS`."""
    attributes: str = "none"
    """Attributes that a user sets: none, cache, layers, both."""
    owner: str = "transformers"
    """Whose class the cache has: transformers, or the user's own subclass of it (user), in a pair too (parts), or of
    the same name (namesake)."""
    step: int = 0
    """How many tokens are written at a time; 0 for all at once."""

    def __str__(self) -> str:
        parts = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if self.differs(field.name)]
        return f"Case({', '.join(parts)})"

    def differs(self, name: str) -> bool:
        """Whether a field is not at its plainest value."""
        return bool(getattr(self, name) != getattr(PLAIN, name))


PLAIN = Case()
Choices = dict[str, Sequence[Any]]
"""What each field is drawn from; fields that are left out stay plain."""


def draw(name: str, count: int, choices: Choices) -> Iterator[Case]:
    """Draw `count` cases, the same for the same name, count and choices."""
    chooser = random.Random(name)  # noqa: S311 - reproducible, not secret
    for _ in range(count):
        yield replace(PLAIN, **{field: chooser.choice(values) for field, values in choices.items()})


def each_of(field: str, values: Sequence[Any], base: Case = PLAIN) -> Iterator[Case]:
    """One case a value of one field."""
    return (replace(base, **{field: value}) for value in values)


def shrink(case: Case, fails: Callable[[Case], bool], tries: int = 200) -> Case:
    """The plainest case found that still fails: each field at its plainest value, or a number halfway there.

    Args:
        case: one that fails.
        fails: whether a case fails; a case that cannot be built does not.
        tries: how many cases may be asked at most.
    """
    left = [tries]

    def still(other: Case) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fails(other)

    changed = True
    while changed and left[0] > 0:
        changed = False
        for field in fields(case):
            smaller = _shrink_field(case, field.name, still)
            changed = changed or smaller != case
            case = smaller
    return case


def _shrink_field(case: Case, name: str, still: Callable[[Case], bool]) -> Case:
    value, plain = getattr(case, name), getattr(PLAIN, name)
    if value == plain:
        return case
    plainest = _with(case, name, plain)
    if still(plainest):
        return plainest
    if not isinstance(value, int):
        return case
    # The fault has a threshold between the two, most likely.
    good, bad = int(plain), value
    while abs(bad - good) > 1:
        middle = (good + bad) // 2
        if still(_with(case, name, middle)):
            bad = middle
        else:
            good = middle
    return _with(case, name, bad)


def _with(case: Case, name: str, value: Any) -> Case:
    return replace(case, **{name: value})
