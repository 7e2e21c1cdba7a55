"""A module of a model with a layer class of its own, as `transformers.models` has them, and caches with such layers."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch.utils import _pytree as py_pytree

from kvconform import learned, probes

FAKE = "transformers.models.fake.modeling_fake"
SOURCE = """
import torch
from transformers.cache_utils import DynamicLayer

class FakeLayer(DynamicLayer):
    def __init__(self):
        super().__init__()
        self.rate = 4
        self.kind = "compressed"
        self.seen = 0
        self.entries = {"own": 0, "index": 0}
        self.extra = None
        self.buffers = {"own": None, "index": None}
        self.pair = [None, None]

    def update(self, keys, values, *args, **kwargs):
        self.seen += keys.shape[-2]
        for name in self.entries:
            self.entries[name] += keys.shape[-2] // self.rate
            old = self.buffers[name]
            self.buffers[name] = keys.sum(1) if old is None else torch.cat([old, keys.sum(1)], 1)
        self.extra = keys * 2 if self.extra is None else torch.cat([self.extra, keys * 2], -2)
        self.pair[0], self.pair[1] = self.extra.sum(-2), self.extra.sum(-1)
        return super().update(keys, values)

    def total(self):
        return self.extra.sum() + self.seen * self.rate + sum(self.entries.values()) + self.buffers["own"].sum()

class NoLayer:
    pass
"""


@pytest.fixture
def fake(monkeypatch):
    """A module of a model with a layer class of its own."""
    module = types.ModuleType(FAKE)
    monkeypatch.setitem(sys.modules, FAKE, module)
    exec(compile(SOURCE, FAKE, "exec"), vars(module))
    yield module
    learned.reset()


def cache_of(cls, tokens=3, layers=2, batch=1):
    """A cache with a layer of `cls` after each DynamicLayer."""
    cache = probes.cache_class("DynamicCache")()
    for index in range(layers):
        cache.update(torch.ones(batch, 2, 1, 4), torch.ones(batch, 2, 1, 4), index)
        if index % 2:
            cache.layers[index] = cls()
            states = torch.arange(batch * 2 * tokens * 4.0).reshape(batch, 2, tokens, 4)
            cache.layers[index].update(states, states + 1)
    return cache


def spec_of(cache):
    return py_pytree.tree_flatten(cache)[1]


def again(cache):
    """The cache after a round trip, which must be the same in every attribute."""
    leaves, spec = py_pytree.tree_flatten(cache)
    found = py_pytree.tree_unflatten(leaves, spec)
    other, same = py_pytree.tree_flatten(found)
    assert same == spec
    assert all(one is two for one, two in zip(leaves, other, strict=True))
    for old, new in zip(cache.layers, found.layers, strict=True):
        assert type(old) is type(new)
        assert vars(old).keys() == vars(new).keys()
    return found
