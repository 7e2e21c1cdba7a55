from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from kvconform.kvcache import END, CacheConfig, Causal, EncoderCache, KVCacheFull, NotReady, NotSupported, WrapperCache
from kvconform.kvcache import window_from_visible as converted

INF = math.inf


def made(cache=None, sequences=2, capacity=8, batch=8, config=None):
    cache = cache or Causal.causal()
    if config:
        cache.set_config(config)
    cache.init(torch.float32, sequences, capacity, batch)
    return cache


def step(cache, positions, sequences=None, dim=2):
    """Store tokens whose keys are their positions."""
    sequences = sequences or [0] * len(positions)
    cache.start_forward(positions, sequences)
    key = torch.tensor(positions, dtype=torch.float32)[:, None, None].expand(-1, 1, dim)
    cache.put(key, -key)
    return cache.get()


def visible(cache):
    """Positions that each query sees."""
    key, _, mask = cache.get()
    return [sorted(key[row == 0][:, 0, 0].int().tolist()) for row in mask]


def test_window_w_sees_w_plus_one():
    cache = made(Causal.sliding_window(2), capacity=16)
    step(cache, list(range(6)))
    assert visible(cache) == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]


@pytest.mark.parametrize("visible_keys", [1, 2, 4])
def test_a_window_of_visible_keys_sees_that_many(visible_keys):
    cache = made(Causal.sliding_window(converted(visible_keys)), capacity=16)
    step(cache, list(range(8)))
    assert [len(seen) for seen in visible(cache)] == [min(p + 1, visible_keys) for p in range(8)]


def test_a_window_that_sees_nothing_is_refused():
    with pytest.raises(ValueError, match="expected 1 or more"):
        converted(0)


def test_chunks_end_where_they_end():
    cache = made(Causal.chunked(3))
    step(cache, list(range(7)))
    assert visible(cache) == [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4, 5], [6]]


def test_sequences_do_not_see_each_other():
    cache = made()
    _, _, mask = step(cache, [0, 0, 1], [0, 1, 0])
    assert mask.tolist() == [[0, -INF, -INF], [-INF, 0, -INF], [0, -INF, 0]]


def test_excepted_queries_see_later_ones_and_earlier_masks_stay():
    cache = made()
    _, _, before = step(cache, [0, 1, 2])
    cache.set_causal([0])
    assert visible(cache) == [[0, 1, 2], [0, 1], [0, 1, 2]]
    assert before[0].tolist() == [0, -INF, -INF]
    cache.set_causal()
    assert visible(cache) == [[0], [0, 1], [0, 1, 2]]


def test_excepted_queries_of_a_chunk_stay_in_it():
    cache = made(Causal.chunked(2))
    step(cache, [0, 1, 2])
    cache.set_causal([0])
    assert visible(cache) == [[0, 1], [0, 1], [2]]


def test_full_names_both_sizes_and_changes_nothing():
    cache = made(sequences=1, capacity=4)
    step(cache, [0, 1, 2])
    before = cache._cells.positions_of(0).tolist()
    with pytest.raises(KVCacheFull, match="needs 2 cells, 1 of 4 are free") as error:
        cache.start_forward([3, 4], [0, 0])
    assert (error.value.needed, error.value.free, error.value.cells) == (2, 1, 4)
    assert pickle.loads(pickle.dumps(error.value)).needed == 2
    assert cache._cells.positions_of(0).tolist() == before
    step(cache, [3])
    assert visible(cache) == [[0, 1, 2, 3]]


def test_first_contiguous_run_then_defragmentation():
    cache = made(sequences=4, capacity=2)
    step(cache, [0, 0, 0, 0], [0, 1, 2, 3])
    cache.remove(1, 0)
    cache.start_forward([1, 1], [2, 3])
    assert cache._forward.locations.tolist() == [4, 5]
    cache.put(torch.ones(2, 1, 2), torch.ones(2, 1, 2))
    cache.start_forward([0], [1])
    assert cache._forward.locations.tolist() == [1]
    cache.put(torch.full((1, 1, 2), 7.0), torch.full((1, 1, 2), 7.0))
    cache.remove(0, 0)
    cache.start_forward([1, 2, 3], [1, 1, 1])
    assert cache._forward.locations.tolist() == [5, 6, 7]
    cache.put(torch.full((3, 1, 2), 7.0), torch.full((3, 1, 2), 7.0))
    assert (cache.get()[0][(cache.get()[2][2] == 0)] == 7).all()


def test_sliding_caches_size_themselves_and_forget():
    cache = made(Causal.sliding_window(3), sequences=1, capacity=100, batch=4)
    assert len(cache._cells) == 3 + 4
    for position in range(0, 40, 4):
        step(cache, list(range(position, position + 4)))
    assert sorted(cache._cells.positions_of(0).tolist()) == list(range(33, 40))
    assert cache.can_resume(0, 40)
    assert cache.can_resume(0, 36)
    assert not cache.can_resume(0, 35)
    assert not cache.can_resume(0, 41)


def test_resuming_needs_the_whole_past():
    cache = made()
    assert cache.can_resume(0, 0)
    assert not cache.can_resume(0, 1)
    step(cache, [0, 1, 2])
    assert [cache.can_resume(0, p) for p in range(5)] == [True, True, True, True, False]


def test_removing_from_the_middle_shifts():
    calls = []

    def shift(layer, keys, offsets):
        calls.append((layer, offsets.tolist()))
        return keys + offsets[:, None, None]

    cache = made(Causal.causal(shift))
    step(cache, [0, 1, 2, 3, 4])
    cache.remove(0, 1, 3)
    assert calls == [(0, [-2, -2])]
    step(cache, [3])
    assert visible(cache) == [[0, 1, 2, 3]]


def test_removing_from_the_middle_without_shift_or_when_shared_is_refused():
    cache = made()
    step(cache, [0, 1, 2])
    with pytest.raises(NotSupported, match="no shift function"):
        cache.remove(0, 0, 1)
    cache.remove(0, 2, 3)
    shared = made(Causal.causal(lambda _layer, keys, _offsets: keys))
    step(shared, [0, 1, 2])
    shared.copy_prefix(0, 1, 3)
    with pytest.raises(NotSupported, match="share"):
        shared.remove(0, 0, 1)
    assert shared._cells.positions_of(0).tolist() == [0, 1, 2]
    shared.remove(0, 0)
    assert shared._cells.positions_of(1).tolist() == [0, 1, 2]


def test_reserve_changes_nothing_and_has_the_largest_shapes():
    cache = made()
    step(cache, [0, 1])
    before = cache._storage.layers[0].keys.clone()
    cache.start_forward([2, 3], [0, 0], reserve=True)
    cache.put(torch.full((2, 1, 2), 9.0), torch.full((2, 1, 2), 9.0))
    key, _, mask = cache.get()
    assert key.shape[0] == 16
    assert mask.shape == (2, 16)
    assert torch.equal(before, cache._storage.layers[0].keys)
    step(cache, [2])
    assert visible(cache) == [[0, 1, 2]]


def test_padding_and_permuted_values():
    cache = made(config=CacheConfig(4, 4, torch.bfloat16, permuted_values=True))
    key, value, mask = step(cache, [0, 1, 2])
    assert (tuple(key.shape), tuple(value.shape), tuple(mask.shape)) == ((4, 1, 2), (1, 2, 4), (4, 4))
    assert mask.dtype == torch.bfloat16
    assert (mask[3] == -INF).all()
    assert value[0, 0, :3].tolist() == [0, -1, -2]
    with pytest.raises(NotSupported, match="before the first"):
        cache.set_config(CacheConfig())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.start_forward([0], [0, 1]), ValueError, "one of each"),
        (lambda c: c.start_forward([], []), ValueError, "0 tokens"),
        (lambda c: c.start_forward([0] * 9, [0] * 9), ValueError, "9 tokens"),
        (lambda c: c.start_forward([-1], [0]), ValueError, "positions"),
        (lambda c: c.start_forward([0], [2]), ValueError, "larger max_sequences"),
        (lambda c: c.put(torch.ones(1, 1, 1), torch.ones(1, 1, 1)), NotReady, "start_forward"),
        (lambda c: c.get(), NotReady, "start_forward"),
        (lambda c: c.copy_prefix(0, 0, 1), ValueError, "both sequence"),
        (lambda c: c.remove(0, 3, 1), ValueError, "no range"),
        (lambda c: (c.close(), c.start_forward([0], [0])), NotReady, "init"),
    ],
)
def test_misuse_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call(made())


def test_shapes_of_a_layer_stay():
    cache = made()
    step(cache, [0, 1])
    with pytest.raises(ValueError, match="one row for each token"):
        cache.put(torch.ones(1, 1, 2), torch.ones(1, 1, 2))
    with pytest.raises(ValueError, match="shapes of a layer"):
        cache.put(torch.ones(2, 1, 3), torch.ones(2, 1, 3))


def test_copies_and_pickles_are_independent():
    cache = made()
    step(cache, [0, 1])
    for twin in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        step(twin, [2])
        assert visible(twin) == [[0, 1, 2]]
    assert cache._cells.positions_of(0).tolist() == [0, 1]


def test_encoder_is_stored_once_and_forgotten_by_position():
    cache = made(EncoderCache(), sequences=1)
    cache.start_forward([3, 4, 5], [0, 0, 0], inputs=[1])
    assert not cache.encoder_cached
    cache.put(torch.ones(2, 3), torch.ones(2, 3))
    key, _, mask = cache.get()
    assert cache.encoder_cached
    assert tuple(key.shape) == (2, 3)
    assert mask is None
    cache.remove(0, 5)
    assert cache.encoder_cached
    cache.remove(0, 4)
    assert not cache.encoder_cached
    with pytest.raises(NotSupported):
        EncoderCache().init(torch.float32, 2, 8, 8)
    with pytest.raises(NotSupported):
        cache.copy_prefix(0, 0, 1)


def test_a_failed_start_is_undone_in_the_caches_that_had_started():
    sliding, small = Causal.sliding_window(2), Causal.causal()
    wrapper = made(WrapperCache(sliding, small), sequences=1, capacity=5, batch=4)
    for layer_type in (0, 1):
        if not layer_type:
            wrapper.start_forward([0, 1, 2, 3], [0] * 4)
        wrapper.set_layer_type(layer_type)
        wrapper.put(torch.arange(4.0)[:, None, None], torch.arange(4.0)[:, None, None])
    before = [cache._cells.positions_of(0).tolist() for cache in (sliding, small)]
    with pytest.raises(KVCacheFull):
        wrapper.start_forward([4, 5], [0, 0])
    assert [cache._cells.positions_of(0).tolist() for cache in (sliding, small)] == before == [[0, 1, 2, 3]] * 2
    with pytest.raises(NotReady):
        sliding.get()
    wrapper.remove(0, 3, END)
    assert wrapper.can_resume(0, 3)
    assert wrapper.underlying_cache is small or wrapper.underlying_cache is sliding


def test_a_wrapper_removes_in_all_or_none():
    wrapper = made(WrapperCache(Causal.causal(lambda _layer, keys, _offsets: keys), Causal.causal()))
    wrapper.start_forward([0, 1, 2], [0, 0, 0])
    with pytest.raises(NotSupported):
        wrapper.remove(0, 0, 1)
    assert [cache._cells.positions_of(0).tolist() for cache in wrapper.caches] == [[0, 1, 2]] * 2


def test_device_moves_with_the_cache():
    cache = made()
    step(cache, [0, 1])
    cache.to("meta")
    assert {t.device.type for t in (*cache.get(), cache._forward.locations)} == {"meta"}
    cache.start_forward([2], [0])
    cache.put(torch.ones(1, 1, 2, device="meta"), torch.ones(1, 1, 2, device="meta"))
    assert tuple(cache.get()[2].shape) == (1, 3)
