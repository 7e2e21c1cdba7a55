"""More models: exported decode steps of models, and of sides of a window, that `model` leaves out."""

from __future__ import annotations

import pytest

from kvconform.conformance.exported import MORE_EXPORTED, ExportedStep, expect_decodes_when_exported


@pytest.mark.parametrize("step", MORE_EXPORTED, ids=lambda step: step.name)
def test_exported_decode(registered: object, step: ExportedStep) -> None:
    """A decode step exported with dynamic batch and length, cache in and out.

    Sixteen fed-back steps at two other batches and lengths equal eager; they pass every window and chunk, or stay
    below.
    """
    expect_decodes_when_exported(step)
