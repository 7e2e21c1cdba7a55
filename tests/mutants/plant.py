"""How a mutant is planted: kvconform's registration with one part made wrong, undone exactly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from kvconform.checks.registry import registry_snapshot, restore_registry
from mutants.tools import classes, rewire

MUTANTS: dict[str, Callable[[], Any]] = {}
"""Every mutant by name: a function that returns a context manager."""


def kvconform_context() -> Any:
    """The registration that mutants spoil."""
    from kvconform import register_flattening_functions

    return register_flattening_functions(patch_transformers=True)


def mutant(change: Callable[[], None]) -> Callable[[], Any]:
    """Plant a subject: kvconform's registration, then ``change``; everything is undone exactly."""

    @contextlib.contextmanager
    def subject() -> Iterator[None]:
        with kvconform_context():
            inside = registry_snapshot()
            change()
            try:
                yield
            finally:
                restore_registry(inside)

    MUTANTS[change.__name__] = subject
    return subject


def whole(subject: Callable[[], Any]) -> Callable[[], Any]:
    """Plant a subject that is a context manager of its own."""
    MUTANTS[subject.__name__] = contextlib.contextmanager(subject)
    return MUTANTS[subject.__name__]


def each(**wrappers: Any) -> None:
    """Wrap functions of every registered cache class: see :func:`rewire`."""
    for cls in classes():
        rewire(cls, **wrappers)


def tensors(change: Callable[[torch.Tensor], Any]) -> Callable[[list[Any]], list[Any]]:
    """Change the tensors among leaves, and nothing else."""
    return lambda values: [change(value) if isinstance(value, torch.Tensor) else value for value in values]
