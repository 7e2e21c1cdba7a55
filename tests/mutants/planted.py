"""The planted subjects: ``planted:NAME``. ``planted:none`` has nothing wrong."""

from __future__ import annotations

from typing import Any

from mutants import contexts, habits, lifetimes, occasions, sizes, state, tables, tensors
from mutants.plant import MUTANTS

__all__ = ["MUTANTS", "contexts", "habits", "lifetimes", "occasions", "sizes", "state", "tables", "tensors"]


def __getattr__(name: str) -> Any:
    """A mutant by its name."""
    try:
        return MUTANTS[name]
    except KeyError:
        raise AttributeError(f"no mutant {name!r}; there are: {', '.join(MUTANTS)}") from None
