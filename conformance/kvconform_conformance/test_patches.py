"""Patches: models export with a mask and without, eager results stay the same, and leaving takes everything back."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from kvconform.checks.errors import expect
from kvconform.checks.patches import whole_snapshot
from kvconform_conformance.examples.masked import (
    MASKED,
    MIXTRAL,
    UNMASKED,
    MaskedExport,
    expect_exports,
    expect_exports_with_variadic_keywords,
)
from kvconform_conformance.examples.models import MODELS, TinyModel, tokens
from kvconform_conformance.examples.repaired import MADE, expect_made_of_any_length, expect_skips_layers
from kvconform_conformance.runner.subjects import Subject

PROMPT, STEPS = 6, 4


@pytest.mark.parametrize("asked", MASKED, ids=lambda asked: asked.name)
def test_exported_with_mask(registered: object, asked: MaskedExport) -> None:
    """A prefill or decode step with a mask and padding exports, batch and length dynamic; of Bamba the batch alone.

    It equals eager at two sizes that the export did not see.
    """
    expect_exports(asked)


@pytest.mark.parametrize("asked", UNMASKED, ids=lambda asked: asked.name)
def test_exported_without_mask(registered: object, asked: MaskedExport) -> None:
    """A prefill or decode step without a mask exports with batch and length dynamic.

    It equals eager at two sizes that the export did not see.
    """
    expect_exports(asked)


@pytest.mark.parametrize("nested", [False, True], ids=["by-name", "under-kwargs"])
def test_variadic_keywords(registered: object, nested: bool) -> None:
    """An input that a module takes as `**kwargs` has a dynamic shape, by its own name or under that of `**kwargs`."""
    expect_exports_with_variadic_keywords(nested=nested)


def test_skipped_layers(registered: object) -> None:
    """Layers that are skipped hold nothing, and a DynamicCache gives each other layer what was written to it."""
    expect_skips_layers()


@pytest.mark.needs(*MADE)
def test_sliding_window_cache_is_made(registered: object) -> None:
    """A SlidingWindowCache has as many places as its window, and at most as many as it was asked for."""
    expect_made_of_any_length()


@pytest.mark.parametrize("tiny", [*MODELS, MIXTRAL], ids=lambda tiny: tiny.name)
def test_eager_is_the_same(subject: Subject, tiny: TinyModel) -> None:
    """A prompt and four steps give the same logits, bit for bit, inside the subject and outside it."""
    model = tiny.build()
    expected = _logits(tiny, model)
    context: AbstractContextManager[Any] = subject.activate()
    with context:
        got = _logits(tiny, model)
    for step, (one, other) in enumerate(zip(got, expected, strict=True)):
        expect(
            torch.equal(one, other),
            f"logits differ by {(one - other).abs().max().item():.3g}, expected the same bits",
            f"{tiny.name}, step {step} of {STEPS}",
        )


def _logits(tiny: TinyModel, model: Any) -> list[torch.Tensor]:
    encoded = tiny.encode(model, 2)
    output = model(**tiny.step(model, tokens(2, PROMPT), tiny.start(model, 2), encoded))
    found = [output.logits]
    for step in range(STEPS):
        cache = copy.deepcopy(tiny.cache_of(output))
        output = model(**tiny.step(model, tokens(2, 1, seed=step), cache, encoded, PROMPT + step))
        found.append(output.logits)
    return found


def _left(subject: Subject, error: Exception | None = None) -> None:
    """Enter twice and leave, by an exception if one is given."""
    try:
        with subject.activate(), subject.activate():
            if error is not None:
                raise error
    except ZeroDivisionError:
        pass


# What registrations write is judged by `registration`. They rebuild a set of torch's unpickler, equal to the old one.
_REGISTRATION = (
    "torch._weights_only_unpickler.",
    "torch.utils._pytree.",
    "torch.fx._pytree.",
    "torch.utils._cxx_pytree.",
)


@pytest.mark.parametrize("error", [None, ZeroDivisionError()], ids=["nested", "after-exception"])
def test_leaves_no_trace(subject: Subject, error: Exception | None) -> None:
    """After two nested contexts every attribute of torch's and transformers' modules and classes is what it was."""
    # What is imported for the first time belongs to the state before.
    _left(subject)
    before = whole_snapshot()
    _left(subject, error)
    changed = [name for name in before.changed() if not name.startswith(_REGISTRATION)]
    expect(not changed, f"{len(changed)} attributes are something else: {', '.join(changed[:4])}", "after leaving")
