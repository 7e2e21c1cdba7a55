"""Inputs of a step, each explained by a rule."""

import pytest
import torch

from kvconform.export.errors import WatchError
from kvconform.export.rules import State, explain, rule_named


def state(rows, seen):
    return State(torch.ones(rows, 1, dtype=torch.long), torch.ones(rows, seen + 1), torch.ones(rows, seen))


def test_the_same_first_positions_at_every_step_have_a_rule_of_their_own():
    """Mamba asks as many as its convolution is wide (4.57)."""
    states = [state(2, 3), state(3, 7)]
    name = explain("cache_position", [(one, torch.arange(4)) for one in states])
    assert name == "the first 4 positions"
    assert torch.equal(rule_named(name)(states[1]), torch.arange(4))


def test_positions_of_the_step_come_before():
    assert explain("cache_position", [(state(2, seen), torch.tensor([seen])) for seen in (3, 7)]) == "positions"


def test_what_no_rule_explains_is_named():
    with pytest.raises(WatchError, match="no rule explains the input 'odd'"):
        explain("odd", [(state(2, 3), torch.tensor([[5.0]]))])
