"""A context tells the structure: the same on every release that has it, and nothing that follows from tensors."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.utils._pytree as pytree

from kvconform import CacheStructureError, probes, register_flattening_functions
from kvconform.checks.builders import HEADS, WIDTH
from kvconform.checks.caches import BY_NAME
from kvconform.checks.needs import lookup
from kvconform.checks.observe import differences, essence, observe
from kvconform.checks.trees import expect_round_trip

pytestmark = pytest.mark.usefixtures("_registered")

LINEAR = ("linear-attention", "hybrid-attention", "hybrid-sliding-past")
STATIC = ("static-below", "static-sliding-past", "static-mixed-past", "hybrid-cache", "encoder-decoder-static")


def build(name, **given):
    example = BY_NAME[name]
    if not all(need.met() for need in example.needs):
        pytest.skip(f"this release has no {name}")
    return example.build(**given)


def context_of(cache):
    return pytree.tree_flatten(cache)[1].context


def test_an_encoder_decoder_cache_has_one_context_on_every_release():
    assert context_of(build("encoder-decoder")) == [
        "self_attention_cache",
        "cross_attention_cache",
        '#is_updated={"dict":[[0,true],[1,true]]}',
    ]


@pytest.mark.parametrize("name", ["encoder-decoder", "encoder-decoder-static", "encoder-decoder-empty"])
def test_an_encoder_decoder_cache_gets_back_what_the_context_leaves_out(name):
    cache = build(name)
    restored = pytree.tree_unflatten(*pytree.tree_flatten(cache))
    assert vars(restored).keys() == vars(cache).keys()
    expect_round_trip(cache, name)


@pytest.mark.skipif(not probes.has_layers(), reason="this release keeps its caches as lists")
def test_layers_of_its_own_are_not_taken_for_the_unused_ones():
    cache = build("encoder-decoder")
    layer = probes.cache_class("DynamicLayer")()
    layer.update(torch.ones(1, HEADS, 3, WIDTH), torch.ones(1, HEADS, 3, WIDTH))
    vars(cache)["layers"] = [layer]
    restored = pytree.tree_unflatten(*pytree.tree_flatten(cache))
    assert [one.keys.shape for one in vars(restored)["layers"]] == [(1, HEADS, 3, WIDTH)]


@pytest.mark.parametrize("name", STATIC)
def test_a_static_cache_that_moved_says_so_in_all_its_attributes(name):
    """The settings of 4.54 and 4.55 name a dtype and a batch size too, with which layers would be made."""
    cache, wide = build(name), build(name)
    moved = pytree.tree_map(
        lambda leaf: leaf.double() if torch.is_tensor(leaf) and leaf.is_floating_point() else leaf, wide
    )
    settings = vars(moved).get("layer_init_kwargs", {})
    assert settings.get("dtype", torch.float64) is torch.float64
    assert context_of(cache) == context_of(moved)


@pytest.mark.parametrize("name", LINEAR)
def test_states_of_linear_attention_tell_dtype_device_and_batch(name):
    cache = build(name)
    batch = pytree.tree_map(lambda leaf: torch.cat([leaf, leaf]).double() if torch.is_tensor(leaf) else leaf, cache)
    layer = batch.layers[0]
    assert layer.dtype is torch.float64
    assert getattr(layer, "max_batch_size", 4) == 4
    assert context_of(cache) == context_of(batch)


@pytest.mark.parametrize("name", [*LINEAR, *STATIC])
def test_nothing_is_lost_with_what_follows(name):
    cache = build(name)
    restored = pytree.tree_unflatten(*pytree.tree_flatten(cache))
    assert not differences(essence(observe(restored)), essence(observe(cache)))
    for one, other in zip(getattr(restored, "layers", []), getattr(cache, "layers", []), strict=True):
        assert vars(one).keys() == vars(other).keys()


@pytest.mark.skipif(not probes.has_layers(), reason="this release keeps its caches as lists")
@pytest.mark.parametrize("change", ["added", "left out"])
def test_a_layer_that_counts_otherwise_here_is_refused(change):
    """Static layers count since 4.56 (sliding ones) and 5.4 (all), in one attribute or two."""
    name = "static-sliding-past"
    leaves, spec = pytree.tree_flatten(build(name))
    counters = [entry for entry in spec.context if entry.startswith("cumulative_length")]
    if change == "left out":
        if not counters:
            pytest.skip("static layers of this release do not count")
        changed, leaves = [entry for entry in spec.context if entry not in counters[:1]], leaves[:-1]
        match = f"gives it no {counters[0].split('_X')[0]}"
    else:
        changed, leaves = [*spec.context, spec.context[0].replace("key_", "erased_length_")], [*leaves, 3]
        match = "gives it erased_length, which it does not have"
    with pytest.raises(CacheStructureError, match=match):
        unflatten(spec.type, leaves, changed)


def unflatten(cls, leaves, context):
    return pytree.SUPPORTED_NODES[cls].unflatten_fn(leaves, context)


COUNTING = ("mamba2.modeling_mamba2:Mamba2Cache", "xlstm.modeling_xlstm:xLSTMCache")


@pytest.mark.parametrize("name", COUNTING)
def test_a_count_that_no_tensor_tells_is_a_leaf(name):
    # Mamba2 until 4.47 and xLSTM (an int in 5.3, a tensor in 5.23) count tokens beside states of one shape.
    cls = lookup(f"transformers.models.{name}")
    if cls is None or "seqlen_offset" not in inspect.getsource(cls.__init__):
        pytest.skip("this release has no such class, or it counts nothing")
    module = name.partition(":")[2].removesuffix("Cache")
    config = lookup(f"transformers:{module}Config")(hidden_size=16, num_hidden_layers=1, num_heads=2)
    with register_flattening_functions():
        cache = cls(config, 2, dtype=torch.float32)
        before = context_of(cache)
        cache.seqlen_offset += 5
        expect_round_trip(cache)
        assert context_of(cache) == before
