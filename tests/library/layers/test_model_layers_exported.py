"""Caches with layers of single models in programs: exported steps run at lengths that they have not seen."""

from __future__ import annotations

import importlib

import pytest
import torch

from kvconform import probes, register_flattening_functions, shapes
from tests.library.layers.model_of_a_layer import FAKE, again, cache_of, fake, spec_of

pytestmark = pytest.mark.skipif(not probes.has_layers(), reason="this release keeps its caches as lists")

__all__ = ["fake"]


class Decode(torch.nn.Module):
    """One step of a model that asks its layer for what only that layer has."""

    def forward(self, states, cache):
        """What the layer sums up to, and the cache."""
        keys, _ = cache.layers[1].update(states, states)
        return keys.sum() + cache.layers[1].total(), cache


def test_dynamic_shapes_of_own_tensors_are_left_to_torch(fake):
    auto = torch.export.Dim.AUTO
    with register_flattening_functions():
        cache = cache_of(fake.FakeLayer)
        found = dict(zip(spec_of(cache).context, shapes.dynamic_shapes_for(cache, "B", "L"), strict=False))
    assert found["key_MD_1"] == {0: "B", 2: "L"}
    assert found["extra_MD_1"] == {0: "B", 1: auto, 2: auto, 3: auto}


def test_past_a_window_own_tensors_still_grow(fake):
    window = probes.cache_class("DynamicSlidingWindowLayer")
    if window is None:
        pytest.skip("this release has no dynamic sliding layers")
    fake.FakeWindow = type("FakeWindow", (window,), {"__module__": FAKE})
    cache = probes.cache_class("DynamicCache")()
    cache.layers = [fake.FakeWindow(sliding_window=4)]
    cache.layers[0].update(torch.ones(1, 2, 9, 4), torch.ones(1, 2, 9, 4))
    cache.layers[0].extra = torch.ones(1, 9, 4)
    with register_flattening_functions():
        found = dict(zip(spec_of(cache).context, shapes.dynamic_shapes_for(cache, "B", "L"), strict=False))
    assert found["key_MW4_0"] == {0: "B"}
    assert found["extra_MW4_0"] == {0: "B", 1: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}


@pytest.mark.skipif(not probes.takes_dynamic_int(), reason="this torch takes no dynamic int")
def test_an_exported_step_runs_at_lengths_that_it_has_not_seen(fake):
    auto = torch.export.Dim.AUTO
    states = torch.ones(2, 2, 1, 4)
    with register_flattening_functions():
        cache = cache_of(fake.FakeLayer, 6, batch=2)
        asked = ({0: auto}, shapes.dynamic_shapes_for(cache, auto, auto))
        program = torch.export.export(Decode(), (states, cache), dynamic_shapes=asked, strict=False).module()
        for tokens in (5, 9, 17):
            one, two = cache_of(fake.FakeLayer, tokens, batch=3), cache_of(fake.FakeLayer, tokens, batch=3)
            for _ in range(3):
                got, one = program(torch.ones(3, 2, 1, 4), one)
                expected, two = Decode()(torch.ones(3, 2, 1, 4), two)
                assert torch.equal(got, expected)
                assert one.layers[1].entries == two.layers[1].entries
                assert spec_of(one) == spec_of(two)


# ----------------------------------------------------------------------------------------------------- DeepSeek V4


def tiny_deepseek(few, many):
    """A tiny random model that compresses every `few` and every `many` tokens."""
    transformers = importlib.import_module("transformers")
    if not hasattr(transformers, "DeepseekV4Config"):
        pytest.skip("this release has no DeepSeek V4")
    from kvconform.export.tiny import make_tiny

    kinds = ["heavily_compressed_attention", "compressed_sparse_attention"]
    rates = {"compressed_sparse_attention": few, "heavily_compressed_attention": many}
    return make_tiny("DeepseekV4Config", num_hidden_layers=2, layer_types=kinds, compress_rates=rates)


@torch.no_grad()
def test_deepseek_v4_decodes_on_after_each_round_trip():
    deepseek = tiny_deepseek(2, 4)
    tokens = torch.arange(2 * 16).reshape(2, 16) % 7
    caches = [probes.cache_class("DynamicCache")(config=deepseek.config) for _ in range(2)]
    structures = {}
    with register_flattening_functions():
        caches[1] = again(caches[1])
        for start, end in [(0, 3), *((i, i + 1) for i in range(3, 16))]:
            logits = [
                deepseek(input_ids=tokens[:, start:end], past_key_values=cache, use_cache=True).logits
                for cache in caches
            ]
            assert torch.equal(*logits), end
            caches[1] = again(caches[1])
            structures.setdefault(tuple(spec_of(caches[1]).context), []).append(end)
    assert [type(layer).__name__ for layer in caches[1].layers] == ["DeepseekV4HCACache", "DeepseekV4CSACache"]
    # Below the window of 8, and from there on, as every sliding layer.
    assert list(structures.values()) == [list(range(3, 8)), list(range(8, 17))]


class DecodeDeepseek(torch.nn.Module):
    """A decode step: logits, and the cache after it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, position_ids, past_key_values):
        """Shapes (batch, 1) of the first two."""
        found = self.model(
            input_ids=input_ids, position_ids=position_ids, past_key_values=past_key_values, use_cache=True
        )
        return found.logits, found.past_key_values


@pytest.mark.skipif(not probes.takes_dynamic_int(), reason="this torch takes no dynamic int")
@torch.no_grad()
def test_an_exported_step_of_deepseek_v4_runs_at_lengths_that_it_has_not_seen():
    """Lengths at the same place between two compressions: the model branches on whether a step closes a window."""
    deepseek, auto = tiny_deepseek(4, 8), torch.export.Dim.AUTO
    step = DecodeDeepseek(deepseek).eval()
    tokens = torch.arange(2 * 40).reshape(2, 40) % 7

    def inputs(length):
        cache = probes.cache_class("DynamicCache")(config=deepseek.config)
        deepseek(input_ids=tokens[:, :length], past_key_values=cache, use_cache=True)
        positions = torch.full((2, 1), length)
        return {"input_ids": tokens[:, length : length + 1], "position_ids": positions, "past_key_values": cache}

    with register_flattening_functions():
        given = inputs(22)
        of_cache = shapes.dynamic_shapes_for(given["past_key_values"], auto, auto)
        asked = {"input_ids": {0: auto}, "position_ids": {0: auto}, "past_key_values": of_cache}
        program = torch.export.export(step, (), given, dynamic_shapes=asked, strict=False).module()
        for length in (21, 30, 38):
            got, cache = program(**inputs(length))
            expected, other = step(**inputs(length))
            assert torch.allclose(got, expected, atol=1e-5), length
            assert spec_of(cache) == spec_of(other)
            assert cache.layers[1].entry_count == other.layers[1].entry_count
