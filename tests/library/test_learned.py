"""What was learnt of classes: forgetting it changes no answer, and forgets all of it."""

from __future__ import annotations

import pytest
from torch.utils import _pytree as py_pytree

from kvconform import learned
from kvconform.checks.caches import EXAMPLES

# Whether a release lacks an example is the question of the suite, which counts it; here the others are asked.
OF_THIS_RELEASE = [example for example in EXAMPLES if all(need.met() for need in example.needs)]
TABLES = ("LAYERS", "LAYERS_BY_CODE", "CACHES", "PATTERNS", "PLANS")

pytestmark = pytest.mark.usefixtures("_registered")


def test_the_module_lists_its_tables():
    found = {name for name, value in vars(learned).items() if name.isupper() and isinstance(value, dict)}
    assert found == set(TABLES)
    assert all(f"| `{name}` |" in learned.__doc__ for name in TABLES)


def test_reset_empties_every_table():
    for name in TABLES:
        getattr(learned, name)["something"] = None
    learned.reset()
    assert not any(getattr(learned, name) for name in TABLES)


@pytest.mark.parametrize("example", OF_THIS_RELEASE, ids=lambda example: example.name)
def test_what_was_forgotten_is_learnt_again(example):
    cache = example.build()
    leaves, spec = py_pytree.tree_flatten(cache)
    py_pytree.tree_unflatten(leaves, spec)
    learned.reset()
    again = py_pytree.tree_unflatten(leaves, spec)
    learned.reset()
    assert py_pytree.tree_flatten(again)[1] == spec
