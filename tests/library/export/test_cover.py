"""What a prefill begins with: an empty cache, which may have counters and has no tensors."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvconform.export.cover import module_for, refuse_full
from kvconform.export.errors import ExportError
from kvconform.export.plan import Phase, Plan
from kvconform.export.watch import Call

PLAN = Plan("input_ids", "past_key_values", "input_ids", Phase({}), Phase({}))


class Echo(torch.nn.Module):
    """Returns the cache that it is given."""

    def forward(self, past_key_values):
        return SimpleNamespace(logits=torch.zeros(1), past_key_values=past_key_values)


def nested(leaves):
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


def watched(cache):
    return SimpleNamespace(calls=[Call({"past_key_values": cache}, None)], cache="past_key_values")


@given(nested(st.integers()))
def test_a_prefill_begins_with_the_counters_of_an_empty_cache(cache):
    refuse_full(watched(cache))
    module = module_for(Echo(), PLAN, "prefill", Call({"past_key_values": cache}, None))
    assert [module()[1] for _ in range(2)] == [cache, cache]


@given(nested(st.integers()))
def test_a_cache_that_holds_a_tensor_is_not_empty(counters):
    cache = [counters, torch.zeros(2)]
    with pytest.raises(ExportError, match="of a fixed length"):
        refuse_full(watched(cache))
    with pytest.raises(ExportError, match="of a fixed length"):
        module_for(Echo(), PLAN, "prefill", Call({"past_key_values": cache}, None))
