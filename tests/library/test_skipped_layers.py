"""Layers that are skipped: a cache with some of them is, in all others, a cache without them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform import patch_functions
from kvconform.checks.behave import append, crop, states
from kvconform.patches import Need, answer
from kvconform.patches.registry import find

PATCH = find("skipped-layers")
pytestmark = pytest.mark.skipif(answer(PATCH).need is not Need.NEEDED, reason="no cache of this release forgets layers")

CHANGES = {
    "nothing": lambda cache, length: None,
    "crop": lambda cache, length: crop(cache, length, 1),
    "reorder": lambda cache, length: cache.reorder_cache(torch.tensor([1, 0])),
    "repeat": lambda cache, length: cache.batch_repeat_interleave(2),
    "select": lambda cache, length: cache.batch_select_indices(torch.tensor([1])),
}


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.integers(0, 5), min_size=1, max_size=4),
    st.permutations(range(6)),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.sampled_from(sorted(CHANGES)),
)
def test_the_layers_that_are_written_are_as_in_a_cache_of_these_alone(written, order, counts, change):
    from transformers import DynamicCache

    dense = sorted(written)
    with patch_functions(PATCH.name):
        skipping, plain, start = DynamicCache(), DynamicCache(), 0
        for count in counts:
            for layer in [layer for layer in order if layer in written]:
                append(skipping, *states(2, 2, count, 4, seed=layer + start), layer, start)
            for place, layer in enumerate(dense):
                append(plain, *states(2, 2, count, 4, seed=layer + start), place, start)
            start += count
        for cache in (skipping, plain):
            CHANGES[change](cache, start)
    for layer in range(len(skipping.key_cache)):
        if layer in written:
            place = dense.index(layer)
            assert torch.equal(skipping.key_cache[layer], plain.key_cache[place])
            assert torch.equal(skipping.value_cache[layer], plain.value_cache[place])
        else:
            assert skipping.key_cache[layer] == skipping.value_cache[layer] == []
