"""Exported decode steps that several checks ask: each is exported once in a worker, and asked many times.

An export takes a second and a question milliseconds. A program is kept by the subject in whose context it was
exported, by the example, and by what was asked of it: one subject never gets the program of another, whose specs are
of another registration. A check that runs alone exports what it needs, and its answer is the same. Where the export
is refused, every check that needs it fails with the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch

from kvconform.checks import shapes, trees
from kvconform.checks.caches import Example
from kvconform.checks.errors import ExpectationError
from kvconform.checks.exporting import expect_program_equals_eager, export
from kvconform.checks.modules import UpdateCache
from kvconform_conformance.examples.caches import step_inputs
from kvconform_conformance.runner.subjects import Subject


@dataclass(frozen=True)
class Program:
    """A decode step: as it was exported, as a module, and with the dynamic shapes that were asked for."""

    exported: torch.export.ExportedProgram
    module: torch.nn.Module
    asked: Any


Made = TypeVar("Made")
_MADE: dict[tuple[object, ...], object] = {}


def once(key: tuple[object, ...], make: Callable[[], Made]) -> Made:
    """What `make` gives for this key, made once in a process; a failed expectation is kept too, and raised again.

    The key names the subject, and all else that the program depends on.
    """
    __tracebackhide__ = True
    if key not in _MADE:
        try:
            _MADE[key] = make()
        except ExpectationError as error:
            _MADE[key] = ExpectationError(str(error))
    made = _MADE[key]
    if isinstance(made, ExpectationError):
        # A new one each time: an exception gathers the frames that it was raised through.
        raise ExpectationError(str(made))
    return cast("Made", made)


def decode_step(subject: Subject, example: Example, *, dynamic: bool) -> Program:
    """The decode step of an example, inside the subject's context; it equals eager on the inputs of the export.

    Args:
        subject: whose context is entered.
        example: the cache that the step takes.
        dynamic: batch and length are named dimensions; otherwise every size is constant.

    Raises:
        ExpectationError: the cache is not registered, it cannot be exported, or the program differs from eager.
    """
    __tracebackhide__ = True
    cache = example.build()
    trees.expect_registered(cache, example.where)
    module, inputs = UpdateCache.like(cache), step_inputs(cache)
    asked = named(example) if dynamic else None
    key = ("decode step", subject.name, example.name, dynamic)
    exported = once(key, lambda: export(module, inputs, asked, where=example.where))
    expect_program_equals_eager(exported, module, inputs, where=f"{example.where}, the exported inputs")
    return Program(exported, module, asked)


def named(example: Example) -> Any:
    """The dynamic shapes of `(x, cache, position)`: the batch of both, and the cache's length, by name."""
    dims = shapes.named(example.longest)
    return ({0: dims.batch}, shapes.dynamic_shapes(example.build, 2, example.length, dims), {})
