"""How a mutant is planted: kvconform's registration with one part made wrong, undone exactly."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks.registry import registry_snapshot, restore_registry
from mutants.tools import classes, rewire

MUTANTS: dict[str, Callable[[], Any]] = {}
"""Every mutant by name: a function that returns a context manager."""


def kvconform_context() -> Any:
    """The registration that mutants spoil."""
    from kvconform import register_flattening_functions

    return register_flattening_functions(patch_transformers=True)


@contextlib.contextmanager
def changed(change: Callable[[], None]) -> Iterator[None]:
    """kvconform's registration, then ``change``; what was changed is undone exactly, and nothing else.

    Whatever is registered while it is in force stays, as it does with the right registration: else every change, and
    no change, would be noticed by that.
    """
    with kvconform_context():
        inside = registry_snapshot()
        change()
        planted = {*pytree.SUPPORTED_NODES}
        try:
            yield
        finally:
            restore_registry(inside, keep={*pytree.SUPPORTED_NODES} - planted)


def mutant(change: Callable[[], None]) -> Callable[[], Any]:
    """Plant a subject: kvconform's registration, then ``change``."""
    MUTANTS[change.__name__] = functools.partial(changed, change)
    return MUTANTS[change.__name__]


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
