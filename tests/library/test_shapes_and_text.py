"""Dynamic shapes read off a cache, texts for messages, and the doctor."""

import json

import pytest
import torch

from kvconform import build, doctor, probes, shapes, text
from kvconform.register import register_flattening_functions


def pair(tokens=3):
    return torch.randn(2, 4, tokens, 8), torch.randn(2, 4, tokens, 8)


def test_growing_layers_have_both_dimensions():
    found = shapes.dynamic_shapes_for(build.make_dynamic_cache([pair()]), batch="B", length="L")
    assert found == [{0: "B", 2: "L"}, {0: "B", 2: "L"}]


def test_static_layers_have_a_batch_and_no_length():
    found = shapes.dynamic_shapes_for(build.make_static_cache([pair()], 8), batch="B", length="L")
    assert found[:2] == [{0: "B"}, {0: "B"}]
    assert all(entry is None for entry in found[2:])


def test_past_a_window_the_counter_is_dynamic_and_the_length_is_not():
    window = probes.cache_class("DynamicSlidingWindowLayer")
    if window is None:
        pytest.skip("this release has no dynamic sliding layers")
    cache = build.make_dynamic_cache([pair(9)], window, {"sliding_window": 4})
    keys, values, counter = shapes.dynamic_shapes_for(cache, batch="B", length="L")
    assert keys == values == {0: "B"}
    assert counter is (torch.export.Dim.AUTO if probes.takes_dynamic_int() else None)


def test_an_indexer_has_its_tokens_second_and_its_positions_have_the_batch_second():
    indexed = probes.cache_class("DynamicIndexedLayer")
    if indexed is None or not hasattr(indexed(), "indexer_position_ids"):
        pytest.skip("this release has no indexers that keep positions")
    cache = build.make_dynamic_cache([pair()], indexed)
    cache.layers[0].update_indexer(torch.randn(2, 3, 4))
    cache.layers[0].indexer_position_ids = torch.zeros(3, 2, 3, dtype=torch.long)
    *_, keys, positions = shapes.dynamic_shapes_for(cache, batch="B", length="L")
    assert (keys, positions) == ({0: "B", 1: "L"}, {1: "B", 2: "L"})


def test_the_cross_side_has_a_length_of_its_own():
    cache = build.make_encoder_decoder_cache(build.make_dynamic_cache([pair()]), build.make_dynamic_cache([pair(5)]))
    own, cross = shapes.dynamic_shapes_for(cache, batch="B", length="L", cross_length="X")
    assert own == [{0: "B", 2: "L"}] * 2
    assert cross == [{0: "B", 2: "X"}] * 2


def test_containers_keep_their_kind_and_other_things_stay_static():
    found = shapes.dynamic_shapes_for({"x": torch.zeros(1), "c": (build.make_dynamic_cache([pair()]), 3)}, batch="B")
    assert found == {"x": None, "c": ([{0: "B"}, {0: "B"}], None)}


def test_what_is_given_is_what_export_takes():
    class Add(torch.nn.Module):
        def forward(self, x, cache):
            return x + sum(leaf.sum() for leaf in torch.utils._pytree.tree_leaves(cache))

    batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", max=64)
    with register_flattening_functions():
        cache = build.make_dynamic_cache([pair(), pair()])
        asked = ({0: batch}, shapes.dynamic_shapes_for(cache, batch=batch, length=length))
        program = torch.export.export(Add(), (torch.zeros(2), cache), dynamic_shapes=asked, strict=False)
        other = build.make_dynamic_cache([(torch.ones(3, 4, 7, 8), torch.ones(3, 4, 7, 8))] * 2)
        assert torch.allclose(program.module()(torch.zeros(3), other), torch.full((3,), 4.0 * 3 * 4 * 7 * 8))


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (torch.zeros(2, 3), "T1s2x3"),
        (torch.zeros(2, dtype=torch.int64), "T7s2"),
        ([torch.zeros(1), None], "[T1s1,None]"),
        ({"a": torch.zeros(1, dtype=torch.float16)}, "dict(a:T10s1)"),
        ((), "tuple()"),
    ],
)
def test_texts(thing, expected):
    assert text.string_type(thing, with_shape=True) == expected


def test_a_text_without_shapes_has_ranks():
    assert text.string_type(torch.zeros(2, 3)) == "T1r2"


def test_the_doctor_finds_this_environment_right(capsys):
    assert doctor.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fine"]
    assert {trial["name"] for trial in found["trials"]} >= {"DynamicCache", "StaticCache", "EncoderDecoderCache"}
    assert all(trial["round_trip"] == trial["export"] == "ok" for trial in found["trials"])


def test_the_doctor_tells_in_words(capsys):
    assert doctor.main([]) == 0
    assert "kvconform makes this environment right" in capsys.readouterr().out
