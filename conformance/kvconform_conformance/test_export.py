"""Export: programs that take, return, or take and return a cache; strict and not; and what they do over many steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvconform.checks import trees
from kvconform.checks.builders import HEADS, WIDTH
from kvconform.checks.caches import Example, examples
from kvconform.checks.exporting import expect_exportable
from kvconform.checks.modules import MakeCache, ReadCache, UpdateCache
from kvconform_conformance.examples.caches import EXPORTED, step_inputs
from kvconform_conformance.examples.programs import decode_step
from kvconform_conformance.runner.subjects import Subject

strictly = pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
# Strict export differs by the class that it has to rebuild, hardly by the layers in it; it is the slower one.
_STRICT = examples("dynamic-two-layers", "static-below", "encoder-decoder", "static-sliding-past")
in_both_modes = pytest.mark.parametrize(
    ("strict", "example"),
    [
        pytest.param(strict, example, id=f"{'strict' if strict else 'non-strict'}-{example.name}")
        for strict, chosen in ((False, EXPORTED), (True, _STRICT))
        for example in chosen
    ],
)
of = pytest.mark.parametrize("example", EXPORTED, ids=lambda example: example.name)


@in_both_modes
def test_cache_in(registered: object, example: Example, strict: bool) -> None:
    """A module that reads a cache exports, and its program equals eager."""
    cache = example.build()
    trees.expect_registered(cache, example.where)
    expect_exportable(ReadCache(), (_x(), cache), strict=strict, where=example.where)


@strictly
def test_cache_out(registered: object, strict: bool) -> None:
    """A module that makes a DynamicCache exports, and its program returns the cache that eager returns."""
    trees.expect_registered(examples("dynamic-two-layers")[0].build())
    expect_exportable(MakeCache(), (_x(),), strict=strict, where="a prefill")


@in_both_modes
def test_cache_in_and_out(registered: Subject, example: Example, strict: bool) -> None:
    """A decode step that takes and returns a cache exports; result and cache, counters included, equal eager."""
    if not strict:
        decode_step(registered, example, dynamic=False)
        return
    args = step_inputs(example.build())
    trees.expect_registered(args[1], example.where)
    expect_exportable(UpdateCache.like(args[1]), args, strict=strict, where=example.where)


@of
def test_cache_updated_in_place(registered: object, example: Example) -> None:
    """A decode step that does not return the cache exports, and equals eager.

    A program has no other way to keep a cache than to return it.
    """
    args = step_inputs(example.build())
    trees.expect_registered(args[1], example.where)
    expect_exportable(UpdateCache.like(args[1], returns_cache=False), args, where=example.where)


def _x(batch: int = 2, tokens: int = 1) -> Any:
    return torch.linspace(-1, 1, batch * HEADS * tokens * WIDTH).reshape(batch, HEADS, tokens, WIDTH)
