"""What is dynamic in a step: by known names, and in leaves of no known name what moved between generations."""

import pytest
import torch
import torch.utils._pytree as pytree

from kvconform.export.exporting import _shapes, moving

AUTO = torch.export.Dim.AUTO


class HeldStates:
    """A cache by name alone, as Mamba's was: states of a fixed size for each row, and a flag."""

    def __init__(self, *children):
        self.children = children


@pytest.fixture
def held_states():
    pytree.register_pytree_node(
        HeldStates, lambda one: (list(one.children), None), lambda children, _: HeldStates(*children)
    )
    yield HeldStates
    pytree._deregister_pytree_node(HeldStates)


def test_of_a_cache_by_name_alone_what_moved_is_dynamic(held_states):
    examples = [
        {"ids": torch.ones(rows, 1), "cache": held_states([torch.ones(rows, 4, 3), None], torch.ones(rows, 2, more), 7)}
        for rows, more in ((2, 4), (3, 5))
    ]
    moves = moving(examples)
    assert _shapes(examples[0]["ids"], moves["ids"], AUTO) == {0: AUTO}
    assert _shapes(examples[0]["cache"], moves["cache"], AUTO) == [[{0: AUTO}, None], {0: AUTO, 2: AUTO}, None]


def test_a_structure_of_another_size_says_nothing(held_states):
    examples = [{"cache": held_states(torch.ones(2, 4))}, {"cache": held_states(torch.ones(3, 4), torch.ones(1))}]
    assert moving(examples) == {"cache": (frozenset(),)}


def test_nothing_moves_without_examples():
    assert moving([]) == {}
