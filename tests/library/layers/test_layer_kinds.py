"""Layer classes: their codes, and classes of one's own."""

from __future__ import annotations

import string

import pytest
import torch
from torch.utils import _pytree as py_pytree

from kvconform import KVConformError, learned, probes, register_flattening_functions, register_layer
from kvconform.errors import UnknownLayerError
from kvconform.layers import layer_kinds

layers_only = pytest.mark.skipif(not probes.has_layers(), reason="this release keeps its caches as lists")


@pytest.fixture
def _own_codes(monkeypatch):
    """Classes that a test registers are forgotten after it."""
    monkeypatch.setattr(layer_kinds, "_OWN", {})
    yield
    learned.reset()


def own_layer():
    return type("OwnLayer", (probes.cache_class("DynamicLayer"),), {"__module__": __name__})


def cache_of(cls):
    """Two layers, the second of class `cls`."""
    cache = probes.cache_class("DynamicCache")()
    for index in range(2):
        cache.update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), index)
    cache.layers[1].__class__ = cls
    return cache


def test_codes_are_capital_letters_and_unique():
    codes = [row.code for row in layer_kinds._KNOWN.values()]
    assert len(codes) == len(set(codes))
    assert all(set(code) <= set(string.ascii_uppercase) for code in codes)
    for name, row in layer_kinds._KNOWN.items():
        assert f"| {row.code} |" in layer_kinds.__doc__, name


@layers_only
@pytest.mark.usefixtures("_own_codes")
def test_a_registered_layer_is_known():
    cls = own_layer()
    register_layer(cls, "O")
    cache = cache_of(cls)
    with register_flattening_functions():
        leaves, spec = py_pytree.tree_flatten(cache)
        assert spec.context == ["key_D_0", "value_D_0", "key_O_1", "value_O_1"]
        again = py_pytree.tree_unflatten(leaves, spec)
    assert type(again.layers[1]) is cls
    assert vars(again.layers[1]).keys() == vars(cache.layers[1]).keys()


@layers_only
@pytest.mark.usefixtures("_own_codes")
def test_a_layer_registered_again_leaves_its_old_code():
    """Also where a context with the old code was read before, and so has a plan."""
    cls = own_layer()
    register_layer(cls, "O")
    with register_flattening_functions():
        leaves, old = py_pytree.tree_flatten(cache_of(cls))
        assert type(py_pytree.tree_unflatten(leaves, old).layers[1]) is cls
        register_layer(cls, "OO")
        leaves, new = py_pytree.tree_flatten(cache_of(cls))
        assert new.context[2:] == ["key_OO_1", "value_OO_1"]
        assert type(py_pytree.tree_unflatten(leaves, new).layers[1]) is cls
        with pytest.raises(UnknownLayerError, match=r"code O \("):
            py_pytree.tree_unflatten(leaves, old)


@pytest.mark.parametrize(
    ("code", "message"), [("d", "capital letters"), ("D", "belongs to DynamicLayer"), ("D1", "capital")]
)
def test_codes_are_not_taken_twice(code, message):
    class OwnLayer:
        pass

    with pytest.raises(KVConformError, match=message):
        register_layer(OwnLayer, code)


@layers_only
@pytest.mark.usefixtures("_own_codes")
@pytest.mark.parametrize("count", [3, 9])
def test_a_counter_that_an_example_lacks_is_a_leaf(count):
    """Also where it equals the length of the keys, which only an example that has the counter lets it follow from."""
    cls = own_layer()
    register_layer(cls, "O")
    cache = cache_of(cls)
    assert "erased_length" not in layer_kinds.model_of(cls).ready
    cache.layers[1].erased_length = count
    with register_flattening_functions():
        leaves, spec = py_pytree.tree_flatten(cache)
        assert spec.context == ["key_D_0", "value_D_0", "key_O_1", "value_O_1", "erased_length_O_1"]
        assert leaves[-1] == count
        again = py_pytree.tree_unflatten(leaves, spec)
    assert again.layers[1].erased_length == count
    assert vars(again.layers[1]).keys() == vars(cache.layers[1]).keys()
