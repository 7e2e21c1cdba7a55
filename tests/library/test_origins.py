"""Where an attribute comes from that a context does not mention."""

from __future__ import annotations

import pytest
import torch

from kvconform.learned import CacheModel, LayerModel
from kvconform.origins import Origin, is_as_expected, origin_in_cache, origin_of, tells_itself

USUAL = {"keys": None, "values": None, "dtype": None, "record_past": False}
GROWING = {**USUAL, "cumulative_length": 0}
SLIDING = LayerModel(type("Sliding", (), {}), "W", "sliding_window", GROWING, {**GROWING, "sliding_window": 4})
STATIC = LayerModel(
    type("Static", (), {}), "S", "max_cache_len", {**GROWING, "max_cache_len": 8}, {**GROWING, "max_cache_len": 8}
)


@pytest.mark.parametrize(
    ("model", "name", "ready", "expected"),
    [
        (SLIDING, "sliding_window", True, Origin.CODE),
        (SLIDING, "keys", True, Origin.LEAF),
        (SLIDING, "keys", False, Origin.DEFAULT),
        (SLIDING, "dtype", True, Origin.TENSORS),
        (SLIDING, "dtype", False, Origin.DEFAULT),
        (SLIDING, "record_past", True, Origin.DEFAULT),
        (SLIDING, "mine", True, Origin.ABSENT),
        (SLIDING, "cumulative_length", True, Origin.TENSORS),
        (SLIDING, "cumulative_length", False, Origin.DEFAULT),
        (STATIC, "cumulative_length", True, Origin.LEAF),
        (STATIC, "cumulative_length", False, Origin.DEFAULT),
        (STATIC, "erased_length", True, Origin.ABSENT),
    ],
)
def test_an_attribute_has_one_origin(model, name, ready, expected):
    assert origin_of(name, model, ready=ready, filled=ready) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_seen_tokens", Origin.LEAF),
        ("is_compileable", Origin.PARTS),
        ("offloading", Origin.DEFAULT),
        ("batch_size", Origin.ABSENT),
        ("mine", Origin.ABSENT),
    ],
)
def test_an_attribute_of_a_cache_has_one_origin(name, expected):
    """A counter is a leaf, and what follows from the parts does so, also where a new cache has a value for it."""
    model = CacheModel({"_seen_tokens": 0, "is_compileable": False, "offloading": False})
    assert origin_in_cache(name, model, ("is_compileable",)) is expected


def test_every_origin_is_the_answer_for_some_attribute():
    """A member of `Origin` that no function returns would describe nothing."""
    cache = CacheModel({"offloading": False})
    found = {origin_of(name, SLIDING, ready=True, filled=True) for name in (*SLIDING.ready, "mine")}
    found |= {origin_in_cache(name, cache, ("is_compileable",)) for name in ("is_compileable", "offloading")}
    assert found == set(Origin)


@pytest.mark.parametrize(("count", "below"), [(3, True), (9, False)])
def test_a_counter_follows_from_the_shape_below_a_window_only(count, below):
    state = {"keys": torch.ones(1, 2, 3, 4), "values": torch.ones(1, 2, 3, 4), "cumulative_length": count}
    assert is_as_expected(Origin.TENSORS, "cumulative_length", state, GROWING) is below
    assert not is_as_expected(Origin.LEAF, "cumulative_length", state, GROWING)


def test_a_value_of_ones_own_is_not_the_expected_one():
    state = {"keys": torch.ones(1, 2, 3, 4), "dtype": torch.float16, "record_past": True}
    assert not is_as_expected(Origin.TENSORS, "dtype", state, USUAL)
    assert not is_as_expected(Origin.DEFAULT, "record_past", state, USUAL)
    assert is_as_expected(Origin.TENSORS, "dtype", {**state, "dtype": torch.float32}, USUAL)


def test_without_tensors_nothing_follows():
    assert tells_itself("batch_size", 1, {"keys": torch.ones(1, 2, 3, 4)})
    assert not tells_itself("batch_size", 2, {"keys": torch.ones(1, 2, 3, 4)})
    assert not tells_itself("batch_size", 1, {"keys": None})
