"""Attributes: one order whether they are listed or looked up, and when two values are the same."""

import pytest
import torch

from kvconform import probes
from kvconform.attributes import in_order, same


class Held:
    def __init__(self):
        self.zeta = 1
        self.self_attention_cache = 2

    def grow(self):
        self.alpha = 3


@pytest.mark.parametrize("traced", [False, True])
def test_attributes_come_in_one_order_whether_listed_or_looked_up(monkeypatch, traced):
    held = Held()
    held.grow()
    monkeypatch.setattr(torch.compiler, "is_dynamo_compiling", lambda: traced)
    monkeypatch.setattr(probes, "dynamo_lists_attributes", lambda: False)
    expected = [("self_attention_cache", 2), ("alpha", 3), ("zeta", 1)]
    assert in_order(vars(held), Held) == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, True, False),
        (1, 1, True),
        ([1, (2, None)], [1, (2, None)], True),
        ([1], (1,), False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": 1}, {"b": 1}, False),
        (torch.float16, torch.float16, True),
        ("mine", None, False),
    ],
)
def test_values_are_the_same_if_type_and_content_are(left, right, expected):
    assert same(left, right) is expected


def test_a_tensor_is_the_same_as_itself_only():
    tensor = torch.ones(2)
    assert same(tensor, tensor)
    assert not same(tensor, tensor.clone())
