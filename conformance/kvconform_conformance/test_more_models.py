"""More models: exported decode steps and prefills of models, and of sides of a window, that `model` leaves out."""

from __future__ import annotations

import pytest

from kvconform_conformance.examples.prefills import MORE_PREFILLS, ExportedPrefill, expect_prefills_when_exported
from kvconform_conformance.examples.steps import MORE_EXPORTED, ExportedStep, expect_decodes_when_exported


@pytest.mark.parametrize("step", MORE_EXPORTED, ids=lambda step: step.name)
def test_exported_decode(registered: object, step: ExportedStep) -> None:
    """A decode step exported with dynamic batch and length, cache in and out.

    Sixteen fed-back steps at two other batches and lengths equal eager; they pass every window and chunk, or stay
    below.
    """
    expect_decodes_when_exported(step)


@pytest.mark.parametrize("prefill", MORE_PREFILLS, ids=lambda prefill: prefill.name)
def test_exported_prefill(registered: object, prefill: ExportedPrefill) -> None:
    """Prompt tokens onto a cache, batch and lengths dynamic, cache in and out.

    Logits and returned cache equal eager at two other sizes, and eager decodes on from the returned cache as from its
    own. The cache is empty, which has no leaf in many releases, or (`-chunk`) holds the tokens before. Models that
    loop over the tokens (Mamba, Jamba, MiniMax, Qwen3-Next) are exported for one number of them.
    """
    expect_prefills_when_exported(prefill)
