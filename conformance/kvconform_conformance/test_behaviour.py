"""Behaviour: a restored cache answers and changes as the original does."""

from __future__ import annotations

import pytest

from kvconform.checks import trees
from kvconform.checks.caches import RECIPES, Recipe, recipes


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_same(registered: object, recipe: Recipe) -> None:
    """Lengths, masks, limits, update, crop, reorder, repeat, select and reset agree between original and restored."""
    trees.expect_same_behaviour(recipe.build(), recipe.where)


@pytest.mark.parametrize(
    "recipe", recipes("dynamic-two-layers", "dynamic-empty", "dynamic-configured", "sliding-past"), ids=lambda r: r.name
)
def test_one_layer_more(registered: object, recipe: Recipe) -> None:
    """A restored cache takes, or refuses, one layer more as the original does."""
    trees.expect_same_new_layer(recipe.build(), recipe.where)
