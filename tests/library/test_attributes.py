"""Attributes: one order whether they are listed or looked up, and when two values are the same."""

import re

import pytest
import torch
import torch.utils._pytree as pytree
from hypothesis import given
from hypothesis import strategies as st

from kvconform import build, probes, register_flattening_functions
from kvconform.attributes import in_order, same
from kvconform.errors import UnknownLayerError


class Held:
    def __init__(self):
        self.zeta = 1
        self.self_attention_cache = 2

    def grow(self):
        self.alpha = 3


@pytest.mark.parametrize("traced", [False, True])
def test_attributes_come_in_one_order_whether_listed_or_looked_up(monkeypatch, traced):
    held = Held()
    held.grow()
    monkeypatch.setattr(torch.compiler, "is_dynamo_compiling", lambda: traced)
    monkeypatch.setattr(probes, "dynamo_lists_attributes", lambda: False)
    expected = [("self_attention_cache", 2), ("alpha", 3), ("zeta", 1)]
    assert in_order(vars(held), Held) == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, True, False),
        (1, 1, True),
        ([1, (2, None)], [1, (2, None)], True),
        ([1], (1,), False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": 1}, {"b": 1}, False),
        (torch.float16, torch.float16, True),
        ("mine", None, False),
    ],
)
def test_values_are_the_same_if_type_and_content_are(left, right, expected):
    assert same(left, right) is expected


def test_a_tensor_is_the_same_as_itself_only():
    tensor = torch.ones(2)
    assert same(tensor, tensor)
    assert not same(tensor, tensor.clone())


def made():
    return build.make_dynamic_cache([(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))] * 2)


def round_trip(cache):
    with register_flattening_functions():
        return pytree.tree_unflatten(*pytree.tree_flatten(cache))


class Slotted(probes.cache_class("DynamicCache")):
    __slots__ = ("kept",)


def test_a_slot_that_holds_something_is_refused_and_an_empty_one_is_not():
    cache = Slotted()
    cache.update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), 0)
    assert type(round_trip(cache)) is Slotted
    cache.kept = 3
    with pytest.raises(UnknownLayerError, match=r"Slotted keeps kept in slots.*register_cache_adapter"):
        round_trip(cache)


@given(st.text(max_size=8), st.one_of(st.integers(), st.just([1]), st.just(torch.ones(2))))
def test_a_name_comes_back_or_is_refused(name, value):
    cache = made()
    before = set(vars(cache))
    if name in before:
        return
    vars(cache)[name] = value
    if not name.isidentifier():
        with pytest.raises(UnknownLayerError, match=re.escape(repr(name))):
            round_trip(cache)
        return
    restored = round_trip(cache)
    assert set(vars(restored)) == {*before, name}
    assert vars(restored)[name] is value or vars(restored)[name] == value


@pytest.mark.parametrize("name", ["key_D_0", "value_W4_1", "conv_states.0_L_2", "own_A_3"])
def test_the_name_of_a_leaf_is_refused(name):
    cache = made()
    vars(cache)[name] = torch.ones(2)
    with pytest.raises(UnknownLayerError, match=name):
        round_trip(cache)


def holding_itself():
    held = [1]
    held.append(held)
    return held


def test_one_object_in_two_places_is_refused():
    for first, second in (([1], [1]), ({"a": [1]}, {"a": [1]}), ({1}, {1})):
        cache = made()
        cache.first, cache.second = first, second
        assert round_trip(cache).second == second
        cache.second = [first]
        with pytest.raises(UnknownLayerError, match=r"second\.0 is the very object that .*first is"):
            round_trip(cache)
    cache = made()
    cache.first = holding_itself()
    with pytest.raises(UnknownLayerError, match=r"first\.1 is the very object that .*first is"):
        round_trip(cache)
    cache = made()
    cache.first = cache.second = (1, ("a", None))
    assert round_trip(cache).first == (1, ("a", None))


def test_a_users_kind_of_text_or_number_is_refused():
    for base, value in ((str, "a"), (int, 3), (float, 0.5)):
        cache = made()
        cache.own = type("Own", (base,), {})(value)
        with pytest.raises(UnknownLayerError, match=r"own is a .*Own"):
            round_trip(cache)
