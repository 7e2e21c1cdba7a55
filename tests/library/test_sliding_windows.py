"""Sliding layers with one structure for all lengths: what flattens, what rebuilds, what is traced and what is not."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

from kvconform import dynamic_shapes_for, probes, register_flattening_functions
from kvconform.checks.trees import expect_round_trip
from kvconform.flatten import flatten_cache, flatten_counted_cache, unflatten_cache
from kvconform.layers.layer_kinds import _tiny_arguments
from kvconform.patches import Need, answer, exportable, patch_functions
from kvconform.patches import sliding_windows as patch

WINDOW = 4
Sliding = probes.cache_class("DynamicSlidingWindowLayer")

slides = pytest.mark.skipif(Sliding is None, reason="this release has no DynamicSlidingWindowLayer")
patched = pytest.mark.skipif(
    answer(patch.PATCH).need is not Need.NEEDED, reason="this environment takes one program for all lengths, or none"
)


def sliding_cache(length, batch=2):
    """One sliding layer and one full layer after `length` tokens."""
    cache = probes.cache_class("DynamicCache")()
    cache.layers = [Sliding(WINDOW), probes.cache_class("DynamicLayer")()]
    for layer in range(2):
        keys = torch.arange(batch * length, dtype=torch.float32).reshape(batch, 1, length, 1)
        cache.update(keys, -keys, layer)
    return cache


@slides
@pytest.mark.parametrize("length", [1, 2, WINDOW - 1, WINDOW, 9])
def test_the_counter_is_a_leaf_at_every_length(length):
    leaves, context = flatten_counted_cache(sliding_cache(length))
    assert context == ["key_W4_0", "value_W4_0", "cumulative_length_W4_0", "key_D_1", "value_D_1"]
    assert leaves[2] == length
    with register_flattening_functions(counted=True):
        expect_round_trip(sliding_cache(length))


@slides
@pytest.mark.parametrize("length", [2, 9])
@pytest.mark.parametrize("written", [flatten_cache, flatten_counted_cache])
@pytest.mark.parametrize("counted", [False, True])
def test_a_cache_flattened_either_way_is_rebuilt_in_either_block(length, written, counted):
    cache = sliding_cache(length)
    leaves, context = written(cache)
    with register_flattening_functions(counted=counted):
        again = pytree.SUPPORTED_NODES[type(cache)].unflatten_fn(leaves, context)
        assert pytree.tree_structure(again) == pytree.tree_structure(cache)
    assert vars(again.layers[0]).keys() == vars(cache.layers[0]).keys()
    assert again.get_seq_length() == length
    assert unflatten_cache(type(cache), leaves, context).layers[0].cumulative_length == length


@slides
def test_registration_alone_keeps_two_structures():
    with register_flattening_functions():
        assert pytree.tree_structure(sliding_cache(2)) != pytree.tree_structure(sliding_cache(9))
        with register_flattening_functions(counted=True):
            assert pytree.tree_structure(sliding_cache(2)) == pytree.tree_structure(sliding_cache(9))
        assert pytree.tree_structure(sliding_cache(2)) != pytree.tree_structure(sliding_cache(9))


@slides
def test_a_class_created_inside_is_of_the_kind_of_the_latest_block():
    class LateCache(probes.cache_class("DynamicCache")):
        pass

    def count(cls):
        made = sliding_cache(2)
        made.__class__ = cls
        return len(pytree.tree_leaves(made))

    with register_flattening_functions():

        class Later(LateCache):
            pass

        assert (count(LateCache), count(Later)) == (4, 4)
        with register_flattening_functions(counted=True):
            assert (count(LateCache), count(Later)) == (5, 5)
        assert (count(LateCache), count(Later)) == (4, 4)


@slides
def test_the_length_of_a_window_is_a_dimension_of_its_own():
    auto = torch.export.Dim.AUTO
    number = auto if probes.takes_dynamic_int() else None
    with register_flattening_functions(counted=True):
        for length in (2, 9):
            assert dynamic_shapes_for(sliding_cache(length), batch="B", length="L") == [
                *({0: "B", 2: auto},) * 2,
                number,
                *({0: "B", 2: "L"},) * 2,
            ]
    with register_flattening_functions():
        assert dynamic_shapes_for(sliding_cache(2), batch="B", length="L") == [{0: "B", 2: "L"}] * 4
        assert dynamic_shapes_for(sliding_cache(9), batch="B", length="L")[:3] == [{0: "B"}, {0: "B"}, number]


@slides
@patched
def test_the_quick_answers_of_the_probe_are_those_of_an_export():
    class Decides(Sliding):
        def get_mask_sizes(self, *_):
            return max(self.cumulative_length - self.sliding_window, 0), 0

    class Counts(Sliding):
        def get_mask_sizes(self, *_):
            return 1 + self.cumulative_length, self.cumulative_length - 1

    assert probes._exports_dynamic_int(probes.automatic_dimension())
    assert patch._asks_its_count(Decides)
    assert not patch._asks_its_count(Counts)
    assert not patch._takes_all_lengths(Sliding)


@slides
@patched
def test_what_is_not_traced_is_what_the_release_does(monkeypatch):
    called = []
    for name in ("update", "get_mask_sizes"):
        for cls in (*patch._classes(patch._GROWING), *patch._classes(patch._ALLOCATED)):
            own = vars(cls)[name]
            monkeypatch.setattr(
                cls, name, lambda *given, own=own, name=name, **named: called.append(name) or own(*given, **named)
            )
    with patch_functions("sliding-windows"):
        cache = sliding_cache(9)
    assert called == ["update"]
    assert cache.layers[0].keys.shape[2] == WINDOW - 1


class Step(torch.nn.Module):
    """One update, and the sizes of the mask before it."""

    def forward(self, new, cache):
        sizes = cache.get_mask_sizes(
            new.shape[2] if probes.masks_by_query_length(type(cache)) else new[0, 0, :, 0].long(), 0
        )
        keys, values = cache.update(new, -new, 0)
        return (keys, values, *sizes), cache


@slides
@patched
@pytest.mark.parametrize("count", [1, 3])
def test_one_update_is_right_on_every_side_of_the_window(count):
    """One token, or a chunk of 3: below the window, up to it, over it and past it."""
    auto = torch.export.Dim.AUTO

    def inputs(length, batch):
        full = sliding_cache(length, batch)
        full.layers = full.layers[:1]
        full.layers[0].keys, full.layers[0].values = (
            tensor.contiguous() for tensor in (full.layers[0].keys, full.layers[0].values)
        )
        return torch.full((batch, 1, count, 1), float(length)), full

    with exportable():
        shapes = ({0: auto}, dynamic_shapes_for(inputs(2, 2)[1], auto, auto))
        program = torch.export.export(Step(), inputs(2, 2), dynamic_shapes=shapes, strict=False).module()
        for length in (1, 2, 3, 4, 5, 9):
            (keys, values, *sizes), got = program(*inputs(length, 3))
            (expected, negative, *eager), cache = Step()(*inputs(length, 3))
            assert sizes == eager
            assert torch.equal(keys, expected)
            assert torch.equal(values, negative)
            assert torch.equal(got.layers[0].keys, cache.layers[0].keys)
            assert got.layers[0].cumulative_length == cache.layers[0].cumulative_length == length + count


ALLOCATED = patch._classes(patch._ALLOCATED) if probes.has_layers() else []


def allocated_cache(cls, length, batch):
    """A cache of one allocated layer of a window of 4, filled with `length` tokens one by one."""
    sizes = {"max_cache_len": WINDOW, "sliding_window": WINDOW, "batch_size": batch, "num_heads": 1, "head_dim": 1}
    cache = probes.cache_class("DynamicCache")()
    cache.layers = [cls(**{name: sizes[name] for name in _tiny_arguments(cls)})]
    for token in range(length):
        fill(cache, torch.full((batch, 1, 1, 1), float(token + 1)), torch.tensor([token]))
    return cache


def fill(cache, new, position):
    """One update; 4.54 to 5.3 ask for the positions, and later releases take any further argument."""
    return cache.layers[0].update(new, -new, {"cache_position": position})


class AllocatedStep(torch.nn.Module):
    """The sizes of the mask, and one update."""

    def forward(self, new, position, cache):
        length = new.shape[2]
        sizes = cache.layers[0].get_mask_sizes(position if not probes.masks_by_query_length(type(cache)) else length)
        return (*fill(cache, new, position), *sizes), cache


@patched
@pytest.mark.parametrize("cls", ALLOCATED, ids=lambda cls: cls.__name__)
def test_an_allocated_layer_is_right_on_every_side_of_the_window(cls):
    auto = torch.export.Dim.AUTO

    def inputs(length, batch):
        return (
            torch.full((batch, 1, 1, 1), float(length + 1)),
            torch.tensor([length]),
            allocated_cache(cls, length, batch),
        )

    with torch.no_grad(), exportable():
        shapes = ({0: auto}, {}, dynamic_shapes_for(inputs(2, 2)[2], auto, auto))
        program = torch.export.export(AllocatedStep(), inputs(2, 2), dynamic_shapes=shapes, strict=False).module()
        for length in (1, 2, 3, 4, 5, 9):
            (keys, values, *sizes), got = program(*inputs(length, 3))
            (expected, negative, *eager), cache = AllocatedStep()(*inputs(length, 3))
            assert [int(size) for size in sizes] == [int(size) for size in eager]
            assert torch.equal(keys, expected)
            assert torch.equal(values, negative)
            assert torch.equal(got.layers[0].keys, cache.layers[0].keys)
            assert got.layers[0].keys.shape[2] == WINDOW
            assert flatten_cache(got)[1] == flatten_cache(cache)[1]
            counts = [
                [int(leaf) for leaf in flatten_cache(one)[0] if not torch.is_tensor(leaf)] for one in (got, cache)
            ]
            assert counts[0] == counts[1]
