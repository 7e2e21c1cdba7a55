"""Wrong subjects made from the right one by a list of what a registration can get wrong, for the release that is here.

    attributes   each attribute of each cache and layer class: lost, another's, an earlier one's
    thresholds   each dimension: from a size on, or at one, something goes wrong
    leaves       each place of a leaf: an alias, a copy, a detached one, a view, another layout
    entries      each of torch's tables: an entry missing, stale, of another class
    leftovers    each of torch's tables after leaving: an entry left, lost, replaced
    memory       what a registration remembers, keeps alive, or shares

:func:`mutants` gives all of them by name. A name says what is wrong: ``attributes/DynamicLayer.dtype/lost``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvconform_conformance.runner.subjects import Subject
from mutants.plant import changed


@dataclass(frozen=True)
class Mutant:
    """One wrong subject: its name, and what to do once the right registration is entered, or a context of its own."""

    name: str
    change: Callable[[], None] | None = None
    context: Callable[[], Any] | None = None

    @property
    def subject(self) -> Subject:
        """The subject to put to the suite."""
        assert self.context is not None or self.change is not None
        return Subject(self.name, self.context or functools.partial(changed, self.change))


def require_forks() -> None:
    """Each mutant is judged in a fork of one warm process.

    Raises:
        SystemExit: this platform has no forks.
    """
    if not hasattr(os, "fork"):
        raise SystemExit("error: the mutants are judged in forks of one process, which this platform lacks: use Linux")


def mutants() -> dict[str, Mutant]:
    """Every generated mutant of this release, and the planted ones, by name."""
    from mutants.generated import attributes, entries, leaves, leftovers, memory, thresholds
    from mutants.planted import MUTANTS

    found = [Mutant(f"planted/{name}", context=context) for name, context in MUTANTS.items() if name != "none"]
    for module in (attributes, thresholds, leaves, entries, leftovers, memory):
        found += module.mutants()
    return {one.name: one for one in found}
