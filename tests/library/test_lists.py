"""Caches that are two lists of tensors: the same promises as for layers (transformers up to 4.53)."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as py_pytree

from kvconform import probes
from kvconform.checks import builders, caches, trees

pytestmark = [
    pytest.mark.usefixtures("_registered"),
    pytest.mark.skipif(probes.has_layers(), reason="this release keeps its caches as layers"),
]
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])


def skips():
    """Whether the release can write to a layer before the one below it (4.45 and later)."""
    try:
        probes.cache_class("DynamicCache")().update(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), 1)
    except IndexError:
        return False
    return True


@st.composite
def mixes(draw):
    """Batch, dtype, which layers are written to, tokens of each call."""
    layers = draw(st.lists(st.booleans(), min_size=0, max_size=5))
    written = [i for i, yes in enumerate(layers) if yes] if skips() else [*range(len(layers))]
    return draw(st.integers(1, 3)), draw(DTYPES), written, draw(st.integers(1, 6))


def make(mix, more=0):
    batch, dtype, written, tokens = mix
    return builders.fill(probes.cache_class("DynamicCache")(), batch, tokens + more, written, dtype, "cpu")


@FEW
@given(mixes())
def test_nothing_is_lost(mix):
    trees.expect_round_trip(make(mix), str(mix))
    trees.expect_json_spec(make(mix), str(mix))
    trees.expect_key_paths(make(mix), str(mix))
    trees.expect_leaves_in_order(make(mix), str(mix))
    trees.expect_tree_map(make(mix), str(mix))


@FEW
@given(mixes())
def test_the_rebuilt_cache_behaves_as_the_original(mix):
    trees.expect_same_behaviour(make(mix), str(mix))
    trees.expect_same_new_layer(make(mix), str(mix))
    trees.expect_independent(make(mix), str(mix))


@FEW
@given(mixes(), st.integers(1, 9))
def test_the_spec_does_not_tell_the_length(mix, more):
    trees.expect_spec_constant_over_length(make(mix), make(mix, more), str(mix))


def test_a_program_of_lists_and_one_of_layers_have_one_context():
    spec = py_pytree.tree_structure(make((2, torch.float32, [0, 1], 3)))
    assert spec.context == ["key_D_0", "value_D_0", "key_D_1", "value_D_1"]


@FEW
@given(seen=st.integers(0, 9), kept=st.integers(1, 5))
def test_a_class_that_answers_for_its_length_keeps_its_count(seen, kept):
    class Evicting(probes.cache_class("DynamicCache")):
        """Counts every token, and has fewer: not a copy of what the tensors say."""

        def get_seq_length(self, layer_idx=0):
            return self._seen_tokens

    cache = Evicting()
    cache.key_cache, cache.value_cache = [torch.ones(1, 1, kept, 2)], [torch.ones(1, 1, kept, 2)]
    cache._seen_tokens = seen
    assert trees.round_trip(cache).get_seq_length() == seen


@pytest.mark.parametrize("name", ["static-below", "static-full", "sliding-window-cache", "hybrid-cache"])
def test_static_caches_write_into_the_same_tensors(name):
    example = caches.BY_NAME[name]
    try:
        cache = example.build()
    except TypeError:
        pytest.skip("4.44's own constructor of SlidingWindowCache raises")
    again = trees.round_trip(copy.deepcopy(cache))
    assert all(a.shape == b.shape for a, b in zip(again.key_cache, cache.key_cache, strict=True))
    trees.expect_same_behaviour(cache, name)
