"""A mask built on the last one is the mask built anew, whatever happened in between."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform.kvcache import CacheConfig, Causal, KVCacheFull
from kvconform.kvcache.mask import Asked, MaskBuffer

KINDS = {"causal": Causal.causal, "window": lambda: Causal.sliding_window(5), "chunk": lambda: Causal.chunked(4)}
SEQUENCES, CAPACITY, BATCH = 3, 24, 8


def fresh(kind, padding=1):
    cache = KINDS[kind]()
    cache.set_config(CacheConfig(cache_padding=padding))
    cache.init(torch.float32, SEQUENCES, CAPACITY, BATCH)
    return cache


def built_anew(cache):
    forward = cache._forward
    batch, span, rows = forward.batch(), forward.cells(), forward.mask.shape[0]
    return MaskBuffer(torch.float32, rows, span[1]).build(
        cache._cells, Asked(batch, cache.rule), int(forward.locations[0]), span, rows
    )


def step(cache, lengths, sequences, tokens):
    positions = [p for s in sequences for p in range(lengths[s], lengths[s] + tokens)]
    try:
        cache.start_forward(positions, [s for s in sequences for _ in range(tokens)])
    except KVCacheFull:
        for s in range(SEQUENCES):
            cache.remove(s, 0)
            lengths[s] = 0
        return
    assert torch.equal(cache._forward.mask, built_anew(cache))
    for s in sequences:
        lengths[s] += tokens


OPERATIONS = st.one_of(
    st.tuples(st.just("step"), st.permutations(range(SEQUENCES)), st.integers(1, SEQUENCES), st.integers(1, 2)),
    st.tuples(st.just("again"), st.integers(1, 6)),
    st.tuples(st.just("undo"), st.integers(0, SEQUENCES - 1)),
    st.tuples(st.just("cut"), st.integers(0, SEQUENCES - 1), st.integers(0, 6)),
    st.tuples(st.just("copy"), st.permutations(range(SEQUENCES)), st.integers(0, 6)),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [1, 4])
@settings(deadline=None, max_examples=60)
@given(operations=st.lists(OPERATIONS, min_size=3, max_size=25))
def test_equals_the_mask_built_anew(kind, padding, operations):
    cache, lengths, last = fresh(kind, padding), [0] * SEQUENCES, ((0, 1), 1)
    for name, *arguments in operations:
        if name == "step":
            last = (tuple(arguments[0][: arguments[1]]), arguments[2])
            step(cache, lengths, *last)
        elif name == "again":  # what a server does most: the same sequences, a batch further
            for _ in range(arguments[0]):
                step(cache, lengths, *last)
        elif name == "undo":
            before = list(lengths)
            step(cache, lengths, (arguments[0],), 2)
            if lengths > before:
                cache.cancel_forward()
                lengths[:] = before
        elif name == "cut":
            sequence, length = arguments
            if length <= lengths[sequence] and cache.can_resume(sequence, length):
                cache.remove(sequence, length)
                lengths[sequence] = length
        else:
            (source, target, _), length = arguments
            if length <= lengths[source] and cache.can_resume(source, length):
                cache.copy_prefix(source, target, length)
                lengths[target] = length


def test_the_next_pass_writes_only_what_is_new():
    cache = fresh("causal")
    cache.start_forward(list(range(6)), [0] * 6)
    cache.start_forward([6], [0])
    shown = cache._masks._shown[0]
    cache.start_forward([7], [0])
    assert cache._masks._shown[0].follows(shown)
