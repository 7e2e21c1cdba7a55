"""The codec of values: a trace reads of a context what the parser reads."""

import sys
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvconform import values
from kvconform.errors import UnknownLayerError

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


@pytest.mark.parametrize(
    "value", [lambda: 0, sys, len, (0 for _ in "")], ids=["function", "module", "builtin", "generator"]
)
def test_what_attributes_do_not_describe_is_refused(value):
    with pytest.raises(UnknownLayerError, match=r"object\.compress is a builtins\."):
        values.Writer(object()).write("compress", value)
