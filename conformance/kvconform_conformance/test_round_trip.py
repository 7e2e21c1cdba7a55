"""Round trip: what comes back from flattening and unflattening a cache."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from kvconform.checks import trees
from kvconform.checks.behave import append, crop, crops_by_count, states
from kvconform.checks.caches import RECIPES, Recipe, recipes
from kvconform.checks.needs import lookup
from kvconform.checks.observe import differences, observe

every = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
growing = pytest.mark.parametrize(
    "recipe", recipes("dynamic-two-layers", "dynamic-one-layer", "encoder-decoder", "mixed-below"), ids=lambda r: r.name
)


@every
def test_whole(registered: object, recipe: Recipe) -> None:
    """A cache comes back with everything it held, its tensors uncopied, its counters exact."""
    trees.expect_round_trip(recipe.build(), recipe.where)


@every
def test_twice(registered: object, recipe: Recipe) -> None:
    """A second round trip loses nothing either."""
    trees.expect_round_trip(trees.round_trip(recipe.build(), recipe.where), recipe.where)


@growing
def test_independent(registered: object, recipe: Recipe) -> None:
    """Growing the restored cache leaves the original as it was."""
    trees.expect_independent(recipe.build(), recipe.where)


@pytest.mark.parametrize("name", ["list", "tuple", "dict"])
def test_nested(registered: object, name: str) -> None:
    """A cache inside a built-in container comes back in it."""
    cache = recipes("dynamic-two-layers")[0].build()
    trees.expect_registered(cache)
    value: Any = {"list": [cache, cache], "tuple": (cache, torch.ones(1)), "dict": {"past": cache}}[name]
    restored = trees.round_trip(value)
    trees.expect_no_differences(
        differences(
            observe(restored if name != "list" else restored[0]),
            observe(value if name != "list" else cache),
        ),
        f"lost in a round trip inside a {name}",
    )


@pytest.mark.parametrize("seed", range(6))
def test_random(registered: object, seed: int) -> None:
    """A DynamicCache of random layers, sizes and operations comes back whole (the seed is in the id)."""
    cache, history = _random_cache(random.Random(seed))  # noqa: S311 - reproducible, not secret
    trees.expect_round_trip(cache, f"DynamicCache after {history}")


def _random_cache(choose: random.Random) -> tuple[Any, str]:
    """Apply a few random operations to a DynamicCache of one to four layers."""
    cache = lookup("transformers.cache_utils:DynamicCache")()
    layers, batch, heads, width = (
        choose.randint(1, 4),
        choose.randint(1, 3),
        choose.randint(1, 3),
        choose.choice([2, 8]),
    )
    dtype = choose.choice([torch.float32, torch.float16, torch.bfloat16])
    length, history = 0, []
    for step in range(choose.randint(1, 5)):
        operation = choose.choice(["update", "update", "crop", "reorder"]) if length > 2 else "update"
        if operation == "update":
            tokens = choose.randint(1, 6)
            for layer in range(layers):
                append(cache, *states(batch, heads, tokens, width, seed=step * 10 + layer, dtype=dtype), layer, length)
            length += tokens
        elif operation == "crop":
            crop(cache, length, 1)
            length -= 1
        else:
            cache.reorder_cache(torch.arange(batch - 1, -1, -1))
        history.append(f"{operation} ({length} tokens)")
    return cache, f"{', '.join(history)}; {layers} layers, crop by {'count' if crops_by_count(cache) else 'length'}"
