"""Model: tiny random models go on with caches that went through a registration, and through exported programs."""

from __future__ import annotations

import copy

import pytest
import torch

from kvconform.checks import trees
from kvconform.checks.errors import expect
from kvconform_conformance.examples.compiled import COMPILED, expect_compiles_once
from kvconform_conformance.examples.models import MODELS, TinyModel, tokens
from kvconform_conformance.examples.prefills import PREFILLS, ExportedPrefill, expect_prefills_when_exported
from kvconform_conformance.examples.steps import EXPORTED, PROMPT, ExportedStep, expect_decodes_when_exported
from kvconform_conformance.examples.windows import (
    ONE_WINDOW_PROGRAM,
    WindowStep,
    expect_one_program_for_all_lengths,
    require_one_structure,
)

STEPS = 6


@pytest.mark.parametrize("tiny", MODELS, ids=lambda tiny: tiny.name)
def test_decodes_on(registered: object, tiny: TinyModel) -> None:
    """Whatever cache the model returns survives a round trip before each step, and decodes on to the same logits."""
    model = tiny.build()
    encoded = tiny.encode(model, 2)
    original = tiny.prefill(model, 2, PROMPT)
    trees.expect_registered(original, tiny.name)
    restored = copy.deepcopy(original)
    for step in range(STEPS):
        where = f"{tiny.name}, step {step + 1} of {STEPS}"
        restored = trees.round_trip(restored, where)
        ids, start = tokens(2, 1, seed=step + 1), PROMPT + step
        expected = model(**tiny.step(model, ids, original, encoded, start))
        got = model(**tiny.step(model, ids, restored, encoded, start))
        expect(
            torch.allclose(got.logits, expected.logits, rtol=1e-5, atol=1e-5),
            f"logits differ by {(got.logits - expected.logits).abs().max().item():.3g}, expected at most 1e-05",
            where,
        )
        original, restored = tiny.cache_of(expected), tiny.cache_of(got)


@pytest.mark.parametrize("step", EXPORTED, ids=lambda step: step.name)
def test_exported_decode(registered: object, step: ExportedStep) -> None:
    """A decode step exported with dynamic batch and length, cache in and out.

    Sixteen fed-back steps at two other batches and lengths equal eager; they pass every window and chunk, or stay
    below.
    """
    expect_decodes_when_exported(step)


@pytest.mark.parametrize("prefill", PREFILLS, ids=lambda prefill: prefill.name)
def test_exported_prefill(registered: object, prefill: ExportedPrefill) -> None:
    """Prompt tokens onto a cache, batch and lengths dynamic, cache in and out.

    Logits and returned cache equal eager at two other sizes, and eager decodes on from the returned cache as from its
    own. The cache is empty, which has no leaf in many releases, or (`-chunk`) holds the tokens before.
    """
    expect_prefills_when_exported(prefill)


@pytest.fixture
def sliding(registered: object, step: WindowStep) -> WindowStep:
    """A step with a window, unless the subject gives its cache two structures, one on each side of the window."""
    require_one_structure(step)
    return step


@pytest.mark.parametrize("step", ONE_WINDOW_PROGRAM, ids=lambda step: step.name)
def test_one_window_program(sliding: WindowStep) -> None:
    """One program decodes from length 2 to 40 through a window of 8, fed its own cache, as eager does.

    It is exported at length 5, and run at other batches from the window's edge and from past it too. No layer that
    slides ever holds more than its window.
    """
    expect_one_program_for_all_lengths(sliding)


@pytest.mark.parametrize("tiny", COMPILED, ids=lambda tiny: tiny.name)
def test_compiled_static_cache(registered: object, tiny: TinyModel) -> None:
    """`torch.compile` of a decode step onto a StaticCache: one compilation for 32 steps, and the tokens of eager.

    The cache goes through a round trip before each step, which must not look like another cache to the compiled code.
    """
    expect_compiles_once(tiny)
