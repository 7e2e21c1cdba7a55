"""Caches that are lists of layers: whatever mix of layers, nothing is lost (transformers 4.54 and later)."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as py_pytree

from kvconform import probes
from kvconform.checks import trees
from kvconform.checks.behave import append
from kvconform.checks.trees import (
    expect_independent,
    expect_json_spec,
    expect_key_paths,
    expect_leaf_types,
    expect_leaves_in_order,
    expect_round_trip,
    expect_same_behaviour,
    expect_same_new_layer,
    expect_spec_constant_over_length,
    expect_tree_map,
)
from kvconform.layers import fast, writing
from kvconform.origins import COUNTERS

pytestmark = [
    pytest.mark.usefixtures("_registered"),
    pytest.mark.skipif(not probes.has_layers(), reason="this release keeps its caches as lists"),
]

HEADS, WIDTH = 2, 4
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])
# 4.54 and 4.55 have the class of growing layers only, and static ones that want every size at once.
GROWING = [n for n in ("DynamicLayer", "DynamicSlidingWindowLayer") if probes.cache_class(n) is not None]
LAZY = probes.cache_class("DynamicSlidingWindowLayer") is not None
STATIC = [n for n in ("StaticLayer", "StaticSlidingWindowLayer") if probes.cache_class(n) is not None] if LAZY else []


def states(batch, tokens, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, HEADS, tokens, WIDTH, generator=generator).to(dtype) for _ in range(2)]


@st.composite
def layer_kinds(draw, names):
    """One layer: its class, its window or size, whether anything is written to it."""
    name = draw(st.sampled_from(names))
    return name, draw(st.integers(2, 6)), draw(st.integers(0, 4)) != 0


@st.composite
def mixes(draw, names=tuple(GROWING + STATIC)):
    """A whole cache: batch, dtype, the layers, and the tokens of each call of update."""
    layers = draw(st.lists(layer_kinds(names), min_size=0, max_size=5))
    calls = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    return draw(st.integers(1, 3)), draw(DTYPES), layers, calls


def make(mix):
    batch, dtype, layers, calls = mix
    cache = probes.cache_class("DynamicCache")()
    # 4.54 and 4.55 make their layers themselves, one ahead of the caller.
    for name, number, _ in layers if LAZY else ():
        cls = probes.cache_class(name)
        # A static layer that does not slide refuses more tokens than it has room for.
        given = {
            "StaticLayer": {"max_cache_len": 16},
            "StaticSlidingWindowLayer": {"max_cache_len": 16, "sliding_window": number},
        }
        kwargs = given.get(name, {"sliding_window": number} if "Sliding" in name else {})
        cache.layers.append(cls(**kwargs))
    for position, tokens in zip([sum(calls[:i]) for i in range(len(calls))], calls, strict=True):
        for index, (_, _, written) in enumerate(layers):
            if written:
                append(cache, *states(batch, tokens, dtype, seed=index), index, position)
    return cache


@FEW
@given(mixes())
def test_nothing_is_lost(mix):
    expect_round_trip(make(mix), str(mix))


@FEW
@given(mixes(), st.booleans(), st.sampled_from([None, 0, 7, True, "mine", 2.0]))
def test_the_fast_path_says_what_the_careful_one_says(mix, counted, count):
    """Of caches as they come, and with a counter that is not what their class usually has."""
    cache = make(mix)
    for layer in cache.layers if count is not None else ():
        for name in COUNTERS & vars(layer).keys():
            setattr(layer, name, count)
    quick, names = writing.flatten(cache, counted=counted)
    with mock.patch.object(fast, "flatten_layers", return_value=None):
        careful, expected = writing.flatten(cache, counted=counted)
    assert names == expected
    assert len(quick) == len(careful)
    assert all(one is other for one, other in zip(quick, careful, strict=True))


@FEW
@given(mixes())
def test_the_rebuilt_cache_behaves_as_the_original(mix):
    cache = make(mix)
    expect_same_behaviour(cache, str(mix))
    expect_same_new_layer(cache, str(mix))


@FEW
@given(mixes())
def test_the_tree_keeps_its_promises(mix):
    cache = make(mix)
    expect_json_spec(cache, str(mix))
    expect_key_paths(cache, str(mix))
    expect_leaves_in_order(cache, str(mix))
    expect_leaf_types(cache, str(mix))
    expect_tree_map(cache, str(mix))


@FEW
@given(mixes(tuple(GROWING)))
def test_growing_the_copy_spares_the_original(mix):
    expect_independent(make(mix), str(mix))


@FEW
@given(mixes(("DynamicLayer",)), st.integers(1, 9))
def test_the_spec_does_not_tell_the_length(mix, more):
    batch, dtype, layers, calls = mix
    expect_spec_constant_over_length(make(mix), make((batch, dtype, layers, [*calls, more])), str(mix))
    expect_spec_constant_over_length(make(mix), make((batch + 1, dtype, layers, calls)), str(mix))


@FEW
@given(mixes())
def test_four_more_steps_equal_those_of_the_original(mix):
    batch, dtype, layers, calls = mix
    cache = make(mix)
    original, rebuilt = copy.deepcopy(cache), trees.round_trip(copy.deepcopy(cache))
    room = 16 - sum(calls)
    for step in range(min(4, room)):
        for index in range(len(layers)):
            new = states(batch, 1, dtype, seed=90 + step)
            start = int(original.get_seq_length(index))
            expected = append(original, *new, index, start)
            got = append(rebuilt, *new, index, start)
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
            assert int(rebuilt.get_seq_length(index)) == int(original.get_seq_length(index))
        rebuilt = trees.round_trip(rebuilt)


@pytest.mark.skipif(not LAZY, reason="this release has no DynamicSlidingWindowLayer")
@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_specs_agree_below_a_window_and_past_it_but_not_across(tokens):
    def spec(total):
        cache = make((2, torch.float32, [("DynamicSlidingWindowLayer", 4, True)], [1] * total))
        return py_pytree.tree_structure(cache)

    assert spec(tokens) == spec(1)
    assert spec(4 + tokens) == spec(4)
    assert spec(tokens) != spec(4)


@pytest.mark.skipif(not LAZY, reason="this release has no DynamicSlidingWindowLayer")
def test_nine_tokens_through_a_window_of_four_are_nine():
    cache = make((1, torch.float32, [("DynamicSlidingWindowLayer", 4, True)], [1] * 9))
    again = trees.round_trip(cache)
    assert again.get_seq_length() == 9
    assert again.layers[0].sliding_window == 4
    assert again.layers[0].keys.shape[-2] == 3


def test_a_skipped_layer_stays_where_it_is():
    cache = probes.cache_class("DynamicCache")()
    cache.update(*states(1, 3, torch.float32), 1)
    again = trees.round_trip(cache)
    assert len(again.layers) == 2
    assert again.layers[0].keys is None
    assert again.layers[1].keys is cache.layers[1].keys


def test_a_tensor_of_the_cache_itself_survives():
    cache = probes.cache_class("DynamicCache")()
    cache.update(*states(1, 3, torch.float32), 0)
    cache.extra = torch.ones(3)
    again = expect_round_trip(cache)
    assert again.extra is cache.extra


@pytest.mark.parametrize("name", ["seen", "_seen", "is_initialized"])
def test_an_attribute_of_ones_own_survives(name):
    """As many attributes as a usual layer has, but one of them another: the fast path must notice."""
    cache = probes.cache_class("DynamicCache")()
    cache.update(*states(1, 3, torch.float32), 0)
    layer = cache.layers[0]
    for taken in [k for k in vars(layer) if k not in ("keys", "values", name)][:1]:
        delattr(layer, taken)
    setattr(layer, name, "mine")
    expect_round_trip(cache)


@pytest.mark.parametrize("value", [1, 7, "mine", None])
def test_an_attribute_of_ones_own_with_a_name_that_follows_elsewhere_survives(value):
    """`batch_size` follows from the tensors of layers that have it; here it may say what it likes."""
    cache = probes.cache_class("DynamicCache")()
    cache.update(*states(1, 3, torch.float32), 0)
    cache.layers[0].batch_size = value
    again = expect_round_trip(cache)
    assert again.layers[0].batch_size == value


@pytest.mark.parametrize("name", ["batch_size", "head_dim", "k_head_dim", "indexer_dtype"])
def test_an_attribute_of_ones_own_survives_where_there_is_nothing_to_follow_from(name):
    """A layer that holds nothing yet, and one without the tensor that the name speaks of."""
    cache = probes.cache_class("DynamicCache")()
    cache.update(*states(1, 3, torch.float32), 1)
    for layer in cache.layers:
        setattr(layer, name, 7)
    again = expect_round_trip(cache)
    assert [getattr(layer, name) for layer in again.layers] == [7, 7]


def test_a_layer_whose_dtype_is_not_its_tensors_says_so():
    cache = probes.cache_class("DynamicCache")()
    cache.update(*states(1, 3, torch.float32), 0)
    if "dtype" not in vars(cache.layers[0]):
        pytest.skip("the layers of this release do not keep their dtype")
    cache.layers[0].dtype = torch.float16
    # It follows from the tensors once there are some, and is written where it does not.
    leaves, spec = py_pytree.tree_flatten(cache)
    again = py_pytree.tree_unflatten(leaves, spec)
    assert again.layers[0].dtype is torch.float16
