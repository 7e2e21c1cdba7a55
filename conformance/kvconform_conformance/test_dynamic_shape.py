"""Dynamic shapes: what is asked is symbolic, nothing else is, and the program answers at sizes not seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kvconform.checks import shapes, trees
from kvconform.checks.caches import Example, examples
from kvconform.checks.errors import ExpectationError
from kvconform.checks.exporting import (
    expect_decodes,
    expect_exportable,
    expect_program_equals_eager,
    expect_symbolic_exactly,
)
from kvconform.checks.modules import ReadCache, UpdateCache
from kvconform.checks.needs import Need, has
from kvconform_conformance.examples.caches import DYNAMIC, by_name, step_inputs, step_states
from kvconform_conformance.examples.programs import Program, decode_step
from kvconform_conformance.runner.needs import needs
from kvconform_conformance.runner.subjects import Subject

STEPS = 8
_HINTED = examples("dynamic-two-layers", "encoder-decoder")
# What rewriting a program changes is the graph and the way to its leaves: one example of each way.
_REWRITTEN = (*_HINTED, by_name("mixed-16-past"))


def _combinations() -> list[Any]:
    """Every example with named dimensions; the hints, which come to the same program, with one example of each kind."""
    ways: list[tuple[str, Callable[[int], shapes.Dims], tuple[Example, ...], tuple[Need, ...]]] = [
        ("named", shapes.named, DYNAMIC, ()),
        ("dynamic-hint", lambda _: shapes.hinted("DYNAMIC"), _HINTED, (has("torch.export:Dim.DYNAMIC"),)),
        ("auto-hint", lambda _: shapes.hinted("AUTO"), _HINTED, (has("torch.export:Dim.AUTO"),)),
    ]
    return [
        pytest.param(dims, example, id=f"{name}-{example.name}", marks=needs(*required))
        for name, dims, chosen, required in ways
        for example in chosen
    ]


asked_in_each_way = pytest.mark.parametrize(("dims", "example"), _combinations())
of = pytest.mark.parametrize("example", DYNAMIC, ids=lambda example: example.name)


def _asked(example: Example, dims: shapes.Dims) -> tuple[Any, ...]:
    """The dynamic shapes of `(x, cache)`: the batch of both, and the cache's length."""
    cache = shapes.dynamic_shapes(example.build, 2, example.length, dims)
    return ({0: dims.batch}, cache)


def _unseen(example: Example) -> list[tuple[int, int]]:
    """Two (batch, length) pairs unlike the exported one, on the same side of a window."""
    return [(3, example.length + 2), (5, example.length + 7)]


@asked_in_each_way
def test_cache_in(registered: object, example: Example, dims: Callable[[int], shapes.Dims]) -> None:
    """A module that reads a cache: symbolic exactly where asked, equal to eager at two unseen (batch, length) pairs."""
    trees.expect_registered(example.build(), example.where)
    asked = _asked(example, dims(example.longest))
    module = ReadCache()
    program = expect_exportable(module, (step_states(2, 1, 0), example.build()), asked, where=example.where)
    expect_symbolic_exactly(program, asked, example.where)
    for batch, length in _unseen(example):
        args = (step_states(batch, 1, 0), example.build(batch, length))
        expect_program_equals_eager(program, module, args, where=f"{example.where}; batch {batch}, length {length}")


@asked_in_each_way
def test_cache_in_and_out(registered: Subject, example: Example, dims: Callable[[int], shapes.Dims]) -> None:
    """A decode step: symbolic exactly where asked; result and returned cache equal eager at two unseen sizes."""
    shared = dims is shapes.named
    program = decode_step(registered, example, dynamic=True) if shared else _step(example, dims(example.longest))
    _expect_generality(program, example)


@of
def test_strict(registered: object, example: Example) -> None:
    """The same decode step exported in strict mode, with named dimensions."""
    _expect_generality(_step(example, shapes.named(example.longest), strict=True), example)


def _step(example: Example, dims: shapes.Dims, *, strict: bool = False) -> Program:
    """A decode step that no other check asks."""
    cache = example.build()
    trees.expect_registered(cache, example.where)
    asked = (*_asked(example, dims), {})
    module = UpdateCache.like(cache)
    program = expect_exportable(module, step_inputs(cache), asked, strict=strict, where=example.where)
    return Program(program, module, asked)


def _expect_generality(program: Program, example: Example) -> None:
    expect_symbolic_exactly(program.exported, program.asked, example.where)
    for batch, length in _unseen(example):
        args = step_inputs(example.build(batch, length), batch)
        where = f"{example.where}; batch {batch}, length {length}"
        expect_program_equals_eager(program.exported, program.module, args, where=where)


@of
def test_decode(registered: Subject, example: Example) -> None:
    """Eight decode steps through one program, fed its own cache, equal eager.

    A sliding cache stays within its window.
    """
    program = decode_step(registered, example, dynamic=True)
    expect_decodes(
        program.exported,
        program.module,
        step_inputs(example.build()),
        lambda step: step_states(2, 1, step),
        steps=STEPS,
        where=example.where,
    )


@pytest.mark.parametrize("example", _REWRITTEN, ids=lambda example: example.name)
def test_decomposed(registered: Subject, example: Example) -> None:
    """A decode step after `run_decompositions()`, as every runtime asks for, equals eager at two unseen sizes."""
    program = decode_step(registered, example, dynamic=True)
    _expect_still_right(program, example, "run_decompositions", program.exported.run_decompositions)


@pytest.mark.parametrize("example", _REWRITTEN, ids=lambda example: example.name)
def test_unflattened(registered: Subject, example: Example) -> None:
    """A decode step after `torch.export.unflatten`, which gives its modules back, equals eager at two unseen sizes."""
    program = decode_step(registered, example, dynamic=True)
    _expect_still_right(program, example, "unflatten", lambda: torch.export.unflatten(program.exported))


def _expect_still_right(program: Program, example: Example, name: str, rewrite: Callable[[], Any]) -> None:
    """Prove that a program in another form answers as the module does; what the rewriting raises is a failure."""
    __tracebackhide__ = True
    try:
        rewritten = rewrite()
    except Exception as error:
        text = " ".join(str(error).split())[:600]
        raise ExpectationError(f"{name} raised {type(error).__name__}: {text} [{example.where}]") from error
    for batch, length in _unseen(example):
        args = step_inputs(example.build(batch, length), batch)
        where = f"{example.where}, after {name}; batch {batch}, length {length}"
        expect_program_equals_eager(rewritten, program.module, args, where=where)


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
