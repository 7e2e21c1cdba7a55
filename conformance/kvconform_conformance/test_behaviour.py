"""Behaviour: a restored cache answers and changes as the original does."""

from __future__ import annotations

import pytest

from kvconform.checks import trees
from kvconform.checks.caches import EXAMPLES, Example, examples


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_same(registered: object, example: Example) -> None:
    """Lengths, masks, limits, update, crop, reorder, repeat, select and reset agree between original and restored."""
    trees.expect_same_behaviour(example.build(), example.where)


@pytest.mark.parametrize(
    "example",
    examples("dynamic-two-layers", "dynamic-empty", "dynamic-configured", "sliding-past"),
    ids=lambda r: r.name,
)
def test_one_layer_more(registered: object, example: Example) -> None:
    """A restored cache takes, or refuses, one layer more as the original does."""
    trees.expect_same_new_layer(example.build(), example.where)
