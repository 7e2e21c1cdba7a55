"""Builders and readers: one meaning on every release. Runs on whichever release is installed."""

import pytest
import torch
import torch.utils._pytree as pytree

from kvconform import build, probes, register_flattening_functions, view
from kvconform.errors import CacheStructureError


def pairs(count=2, tokens=3, batch=2):
    return [(torch.randn(batch, 4, tokens, 8), torch.randn(batch, 4, tokens, 8)) for _ in range(count)]


def test_a_dynamic_cache_holds_the_tensors_themselves():
    given = pairs()
    read = view.view_of(build.make_dynamic_cache(given))
    assert all(a is b for a, (b, _) in zip(read.key_cache, given, strict=True))
    assert all(a is b for a, (_, b) in zip(read.value_cache, given, strict=True))
    assert read.lengths == (3, 3)


def test_an_update_begins_where_the_layer_ends():
    cache = build.make_static_cache(pairs(), max_cache_len=8)
    new = torch.ones(2, 4, 2, 8)
    for layer in range(2):
        view.update(cache, new, new, layer)
    assert view.lengths(cache) == (5, 5)
    assert torch.equal(view.view_of(cache).key_cache[0][:, :, 3:5], new)


@pytest.mark.parametrize("length", [0, 1, 3, 4])
def test_cropping_keeps_a_length_whatever_the_release_counts(length):
    cache = build.make_dynamic_cache(pairs(tokens=4))
    view.crop_to(cache, length)
    assert view.lengths(cache) == (length, length)


def test_reordering_chooses_rows():
    given = pairs()
    cache = build.make_dynamic_cache(given)
    view.reorder(cache, torch.tensor([1, 0, 1]))
    assert torch.equal(view.view_of(cache).key_cache[0], given[0][0][[1, 0, 1]])


def test_mask_sizes_count_the_tokens_and_the_query():
    assert view.mask_sizes(build.make_dynamic_cache(pairs()), 2) == (5, 0)
    assert view.mask_sizes(build.make_static_cache(pairs(), 8), 2) == (8, 0)


def test_an_encoder_decoder_cache_shows_both_sides():
    cache = build.make_encoder_decoder_cache(
        build.make_dynamic_cache(pairs()), build.make_dynamic_cache(pairs(tokens=5))
    )
    read = view.view_of(cache)
    assert read.lengths == (3, 3)
    assert read.inner[1].lengths == (5, 5)


def test_a_mamba_cache_holds_the_states_and_is_a_node_or_the_error_says_what_there_is_instead():
    given = [(torch.randn(2, 6, 4), torch.randn(2, 6, 5)) for _ in range(3)]
    if probes.model_class("mamba", "MambaCache") is None:
        with pytest.raises(CacheStructureError, match="LinearAttentionLayer"):
            build.make_mamba_cache(given)
        return
    cache = build.make_mamba_cache(given)
    assert all(torch.equal(cache.conv_states[index], conv) for index, (conv, _) in enumerate(given))
    assert all(torch.equal(cache.ssm_states[index], state) for index, (_, state) in enumerate(given))
    with register_flattening_functions():
        leaves, spec = pytree.tree_flatten(cache)
        assert leaves
        assert not any(leaf is cache for leaf in leaves)
        assert type(pytree.tree_unflatten(leaves, spec)) is type(cache)


def test_a_class_that_a_module_makes_when_it_is_asked_is_none_of_its_classes(monkeypatch):
    module = probes.transformers_cache_utils()
    monkeypatch.setattr(module, "__getattr__", lambda name: type(name, (), {}), raising=False)
    monkeypatch.setattr(probes, "_CLASSES", {})
    assert isinstance(module.MadeWhenAsked, type)
    assert probes.cache_class("MadeWhenAsked") is None
    assert probes.cache_class("DynamicCache") is module.DynamicCache


def test_a_hybrid_cache_alternates():
    cache = build.make_hybrid_cache(pairs(), sliding_window=2, max_cache_len=8)
    assert [key.shape[-2] for key in view.view_of(cache).key_cache] == [2, 8]


def test_a_static_cache_cannot_be_cropped_and_says_so():
    cache = build.make_static_cache(pairs(), 8)
    if hasattr(cache, "crop") and not probes.has_layers():
        pytest.skip("this release crops static caches")
    with pytest.raises(CacheStructureError, match="cannot be cropped"):
        view.crop_to(cache, 1)


def test_layer_classes_are_one_a_layer():
    if not probes.has_layers():
        with pytest.raises(CacheStructureError, match="no layers"):
            build.make_dynamic_cache(pairs(), cls_layers=[object])
        return
    with pytest.raises(CacheStructureError, match="cls_layers has 1 entries for 2 layers"):
        build.make_dynamic_cache(pairs(), cls_layers=[probes.cache_class("DynamicLayer")])


def test_tokens_beyond_a_window_are_dropped_and_counted():
    window = probes.cache_class("DynamicSlidingWindowLayer")
    if window is None:
        pytest.skip("this release has no dynamic sliding layers")
    cache = build.make_dynamic_cache(pairs(1, tokens=9), window, {"sliding_window": 4})
    assert view.lengths(cache) == (9,)
    assert view.view_of(cache).key_cache[0].shape[-2] == 3
