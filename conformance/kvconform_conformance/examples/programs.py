"""Exported decode steps that several checks ask: each is exported once in a worker, and asked many times.

An export takes a second and a question milliseconds. A program is kept by the subject in whose context it was
exported, by the example, and by what was asked of it: one subject never gets the program of another, whose specs are
of another registration. A check that runs alone exports what it needs, and its answer is the same. Where the export
is refused, every check that needs it fails with the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from kvconform.checks import shapes, trees
from kvconform.checks.caches import Recipe
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


_Key = tuple[str, str, bool]
_EXPORTED: dict[_Key, torch.export.ExportedProgram | ExpectationError] = {}


def decode_step(subject: Subject, recipe: Recipe, *, dynamic: bool) -> Program:
    """The decode step of an example, inside the subject's context; it equals eager on the inputs of the export.

    Args:
        subject: whose context is entered.
        recipe: the example.
        dynamic: batch and length are named dimensions; otherwise every size is constant.

    Raises:
        ExpectationError: the cache is not registered, it cannot be exported, or the program differs from eager.
    """
    __tracebackhide__ = True
    cache = recipe.build()
    trees.expect_registered(cache, recipe.where)
    module, inputs = UpdateCache.like(cache), step_inputs(cache)
    asked = named(recipe) if dynamic else None
    key = (subject.name, recipe.name, dynamic)
    if key not in _EXPORTED:
        _EXPORTED[key] = _export(module, inputs, asked, recipe.where)
    made = _EXPORTED[key]
    if isinstance(made, ExpectationError):
        raise ExpectationError(str(made))
    expect_program_equals_eager(made, module, inputs, where=f"{recipe.where}, the exported inputs")
    return Program(made, module, asked)


def named(recipe: Recipe) -> Any:
    """The dynamic shapes of ``(x, cache, position)``: the batch of both, and the cache's length, by name."""
    dims = shapes.named(recipe.longest)
    return ({0: dims.batch}, shapes.dynamic_shapes(recipe.build, 2, recipe.length, dims), {})


def _export(
    module: torch.nn.Module, inputs: Any, asked: Any, where: str
) -> torch.export.ExportedProgram | ExpectationError:
    try:
        return export(module, inputs, asked, where=where)
    except ExpectationError as error:
        return ExpectationError(str(error))
