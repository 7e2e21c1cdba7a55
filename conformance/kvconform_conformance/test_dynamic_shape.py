"""Dynamic shapes: what is asked is symbolic, nothing else is, and the program answers at sizes not seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvconform.checks import shapes, trees
from kvconform.checks.caches import Recipe, recipes
from kvconform.checks.exporting import (
    expect_decodes,
    expect_exportable,
    expect_program_equals_eager,
    expect_symbolic_exactly,
)
from kvconform.checks.modules import ReadCache, UpdateCache
from kvconform.checks.needs import Need, has
from kvconform_conformance.examples.caches import DYNAMIC, step_inputs, step_states
from kvconform_conformance.examples.programs import Program, decode_step
from kvconform_conformance.runner.needs import needs
from kvconform_conformance.runner.subjects import Subject

STEPS = 8
_HINTED = recipes("dynamic-two-layers", "encoder-decoder")


def _combinations() -> list[Any]:
    """Every recipe with named dimensions; the hints, which come to the same program, with one recipe of each kind."""
    ways: list[tuple[str, Callable[[int], shapes.Dims], tuple[Recipe, ...], tuple[Need, ...]]] = [
        ("named", shapes.named, DYNAMIC, ()),
        ("dynamic-hint", lambda _: shapes.hinted("DYNAMIC"), _HINTED, (has("torch.export:Dim.DYNAMIC"),)),
        ("auto-hint", lambda _: shapes.hinted("AUTO"), _HINTED, (has("torch.export:Dim.AUTO"),)),
    ]
    return [
        pytest.param(dims, recipe, id=f"{name}-{recipe.name}", marks=needs(*required))
        for name, dims, chosen, required in ways
        for recipe in chosen
    ]


asked_in_each_way = pytest.mark.parametrize(("dims", "recipe"), _combinations())
of = pytest.mark.parametrize("recipe", DYNAMIC, ids=lambda recipe: recipe.name)


def _asked(recipe: Recipe, dims: shapes.Dims) -> tuple[Any, ...]:
    """The dynamic shapes of `(x, cache)`: the batch of both, and the cache's length."""
    cache = shapes.dynamic_shapes(recipe.build, 2, recipe.length, dims)
    return ({0: dims.batch}, cache)


def _unseen(recipe: Recipe) -> list[tuple[int, int]]:
    """Two (batch, length) pairs unlike the exported one, on the same side of a window."""
    return [(3, recipe.length + 2), (5, recipe.length + 7)]


@asked_in_each_way
def test_cache_in(registered: object, recipe: Recipe, dims: Callable[[int], shapes.Dims]) -> None:
    """A module that reads a cache: symbolic exactly where asked, equal to eager at two unseen (batch, length) pairs."""
    trees.expect_registered(recipe.build(), recipe.where)
    asked = _asked(recipe, dims(recipe.longest))
    module = ReadCache()
    program = expect_exportable(module, (step_states(2, 1, 0), recipe.build()), asked, where=recipe.where)
    expect_symbolic_exactly(program, asked, recipe.where)
    for batch, length in _unseen(recipe):
        args = (step_states(batch, 1, 0), recipe.build(batch, length))
        expect_program_equals_eager(program, module, args, where=f"{recipe.where}; batch {batch}, length {length}")


@asked_in_each_way
def test_cache_in_and_out(registered: Subject, recipe: Recipe, dims: Callable[[int], shapes.Dims]) -> None:
    """A decode step: symbolic exactly where asked; result and returned cache equal eager at two unseen sizes."""
    shared = dims is shapes.named
    program = decode_step(registered, recipe, dynamic=True) if shared else _step(recipe, dims(recipe.longest))
    _expect_generality(program, recipe)


@of
def test_strict(registered: object, recipe: Recipe) -> None:
    """The same decode step exported in strict mode, with named dimensions."""
    _expect_generality(_step(recipe, shapes.named(recipe.longest), strict=True), recipe)


def _step(recipe: Recipe, dims: shapes.Dims, *, strict: bool = False) -> Program:
    """A decode step that no other check asks."""
    cache = recipe.build()
    trees.expect_registered(cache, recipe.where)
    asked = (*_asked(recipe, dims), {})
    module = UpdateCache.like(cache)
    program = expect_exportable(module, step_inputs(cache), asked, strict=strict, where=recipe.where)
    return Program(program, module, asked)


def _expect_generality(program: Program, recipe: Recipe) -> None:
    expect_symbolic_exactly(program.exported, program.asked, recipe.where)
    for batch, length in _unseen(recipe):
        args = step_inputs(recipe.build(batch, length), batch)
        where = f"{recipe.where}; batch {batch}, length {length}"
        expect_program_equals_eager(program.exported, program.module, args, where=where)


@of
def test_decode(registered: Subject, recipe: Recipe) -> None:
    """Eight decode steps through one program, fed its own cache, equal eager.

    A sliding cache stays within its window.
    """
    program = decode_step(registered, recipe, dynamic=True)
    expect_decodes(
        program.exported,
        program.module,
        step_inputs(recipe.build()),
        lambda step: step_states(2, 1, step),
        steps=STEPS,
        where=recipe.where,
    )


def test_prompt_of_any_length(registered: object) -> None:
    """A prefill exported with a dynamic prompt returns the cache that eager returns, at two unseen lengths."""
    from kvconform.checks.caches import BY_NAME
    from kvconform.checks.modules import MakeCache

    trees.expect_registered(BY_NAME["dynamic-two-layers"].build())
    dims = shapes.named()
    program = expect_exportable(
        MakeCache(), (step_states(2, 5, 0),), ({0: dims.batch, 2: dims.length},), where="a prefill"
    )
    for batch, length in ((3, 7), (5, 12)):
        args = (step_states(batch, length, 0),)
        expect_program_equals_eager(program, MakeCache(), args, where=f"a prefill; batch {batch}, length {length}")
