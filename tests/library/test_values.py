"""The codec of attributes: what a trace reads of a context, and in which order attributes come."""

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvconform import probes, values
from kvconform.attributes import in_order

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON)
def test_a_trace_reads_what_the_parser_reads(value):
    with mock.patch.object(torch.compiler, "is_dynamo_compiling", return_value=True):
        found = values.loads(values.dumps(value))
    assert (found, repr(found)) == (value, repr(value))


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
