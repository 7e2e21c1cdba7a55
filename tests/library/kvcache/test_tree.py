from __future__ import annotations

import copy
import json

import pytest
import torch
from torch.utils import _pytree as pytree

from kvconform import pytree as tables
from kvconform.kvcache import (
    Causal,
    EncoderCache,
    NotSupported,
    WrapperCache,
    attend,
    dynamic_shapes,
    load,
    register,
    save,
)


class Step(torch.nn.Module):
    """Two layers of attention: a decode step with put and get inside."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (torch.nn.Linear(8, width) for width in (8, 4, 4))

    def forward(self, x, cache):
        for layer in range(2):
            cache.set_layer(layer)
            cache.put(self.k(x).view(-1, 1, 4), self.v(x).view(-1, 1, 4))
            x = x + attend(self.q(x).view(-1, 2, 4), *cache.get()).reshape(-1, 8)
        return x


KINDS = {
    "causal": Causal.causal,
    "sliding": lambda: Causal.sliding_window(2),
    "chunked": lambda: Causal.chunked(3),
}


def prefilled(kind="causal"):
    cache = KINDS[kind]()
    cache.init(torch.float32, 4, 16, 16)
    cache.start_forward([0, 1, 2, 0, 1], [0, 0, 0, 1, 1])
    with torch.no_grad():
        Step()(torch.ones(5, 8), cache)
    return cache


def leaves(cache):
    return pytree.tree_flatten(cache)[0]


def test_registration_is_undone():
    before = tables.snapshot()
    with register():
        assert Causal in pytree.SUPPORTED_NODES
    assert tables.snapshot() == before


def test_round_trip_keeps_the_tensors_and_the_answers():
    with register():
        cache = prefilled("sliding")
        flat, spec = pytree.tree_flatten(cache)
        twin = pytree.tree_unflatten(flat, spec)
        assert all(a is b for a, b in zip(leaves(twin), flat, strict=True))
        assert torch.equal(twin.get()[2], cache.get()[2])
        assert twin.can_resume(0, 3)
        twin.start_forward([3], [0])
        assert sorted(twin._cells.positions_of(0).tolist()) == [1, 2, 3]
        keys = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(cache)[0]]
        assert keys[:4] == ["['k0']", "['v0']", "['k1']", "['v1']"]


def test_structure_does_not_depend_on_length_and_is_json():
    with register():
        cache = prefilled()
        before = pytree.tree_flatten(cache)[1]
        cache.start_forward([3, 2], [0, 1])
        assert pytree.tree_flatten(cache)[1] == before
        cache.remove(1, 0)
        assert pytree.tree_flatten(cache)[1] == before
        assert json.loads(json.dumps(before.context)) == before.context
        assert pytree.treespec_loads(pytree.treespec_dumps(before)) == before


def test_a_shift_function_survives_a_round_trip_but_is_not_compared():
    def shift(_layer, keys, _offsets):
        return keys

    with register():
        cache = Causal.causal(shift)
        cache.init(torch.float32, 1, 4, 4)
        flat, spec = pytree.tree_flatten(cache)
        assert pytree.tree_unflatten(flat, spec).shift is shift
        cache.shift = None
        assert pytree.tree_flatten(cache)[1] == spec


def test_wrapper_and_encoder_are_nodes():
    with register():
        cache = WrapperCache(EncoderCache(), Causal.causal())
        cache.init(torch.float32, 1, 8, 8)
        cache.start_forward([2, 3], [0, 0])
        cache.put(torch.ones(5, 1, 4), torch.ones(5, 1, 4))
        cache.set_layer_type(1)
        cache.put(torch.ones(2, 1, 4), torch.ones(2, 1, 4))
        twin = pytree.tree_unflatten(*pytree.tree_flatten(cache))
        assert twin.caches[0].encoder_cached
        assert torch.equal(twin.get()[0], cache.caches[0].get()[0])
        twin.remove(0, 2)
        assert not twin.caches[0].encoder_cached


def test_moving_all_leaves_is_moving_the_cache():
    with register():
        cache = pytree.tree_map(lambda t: t.to("meta"), prefilled())
        assert cache._storage.device.type == "meta"


def test_save_and_load(tmp_path):
    cache = prefilled("sliding")
    save(cache, tmp_path / "cache.pt")
    assert (tmp_path / "cache.pt").stat().st_size < 40_000
    twin = load(tmp_path / "cache.pt")
    for each in (cache, twin):
        each.start_forward([3, 2], [0, 1])
    step = Step()
    with torch.no_grad():
        assert torch.equal(step(torch.ones(2, 8), cache), step(torch.ones(2, 8), twin))
    with pytest.raises(NotSupported, match="shift"):
        twin.remove(0, 2, 3)


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_exported_step_serves_every_batch_and_length(kind, tmp_path):
    step = Step().eval()
    with register(), torch.no_grad():
        cache, other = prefilled(kind), prefilled(kind)
        example = copy.deepcopy(cache)
        example.start_forward([3, 2], [0, 1])
        batch, history = torch.export.Dim("batch", min=2, max=16), torch.export.Dim("history", min=2, max=64)
        shapes = ({0: batch}, dynamic_shapes(example, batch, history))
        program = torch.export.export(step, (torch.ones(2, 8), example), dynamic_shapes=shapes, strict=False)
        program._example_inputs = None  # pickled, they would be refused by the safe unpickler
        torch.export.save(program, tmp_path / "step.pt2")
        for module in (program.module(), torch.export.load(tmp_path / "step.pt2").module()):
            mine, eager = copy.deepcopy(cache), copy.deepcopy(other)
            for positions, sequences in (([3, 2], [0, 1]), ([4, 5, 3, 0, 1], [0, 0, 1, 2, 2]), ([6, 4, 2], [0, 1, 2])):
                x = torch.randn(len(positions), 8)
                mine.start_forward(positions, sequences)
                eager.start_forward(positions, sequences)
                torch.testing.assert_close(module(x, mine), step(x, eager))
            torch.testing.assert_close(leaves(mine), leaves(eager))
