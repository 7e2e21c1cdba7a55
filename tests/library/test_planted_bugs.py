"""Planted bugs: each is put into the shim alone, and one named check must notice it that finds nothing without it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.fx import _pytree as fx_pytree

from kvconform import (
    flatten,
    learned,
    lists,
    origins,
    probes,
    pytree,
    register,
    register_flattening_functions,
)
from kvconform.checks import trees
from kvconform.checks.caches import BY_NAME
from kvconform.checks.errors import ExpectationError
from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot, restore_registry
from kvconform.layers import fast, plans, reading, writing

PATHS = [(writing, reading), (lists, lists)]
BUGS: dict[str, Bug] = {}


@dataclass(frozen=True)
class Bug:
    """A defect, the check that must notice it, and the example it shows on."""

    plant: Callable
    check: str
    example: str


def bug(check, example="dynamic-two-layers"):
    """Add a bug to the list; the decorated function plants it with monkeypatch."""

    def add(plant):
        BUGS[plant.__name__] = Bug(plant, check, example)
        return plant

    return add


def on_flatten(patch, change):
    """Change what flattening gives: `change(cache, leaves, context) -> (leaves, context)`."""
    for module, _ in PATHS:
        original = module.flatten

        def changed(cache, *, original=original, **options):
            return change(cache, *original(cache, **options))

        patch.setattr(module, "flatten", changed)


def on_unflatten(patch, change):
    """Change the rebuilt cache in place, or return another."""
    for _, module in PATHS:
        original = module.unflatten

        def wrong(cls, leaves, context, original=original):
            made = original(cls, leaves, context)
            return change(made) or made

        patch.setattr(module, "unflatten", wrong)


def states(cache):
    """Layers, or anything else that has keys and values."""
    return vars(cache).get("layers", ())


@bug("expect_round_trip")
def key_and_value_swapped(patch):
    def swap(cache):
        for layer in states(cache):
            layer.keys, layer.values = layer.values, layer.keys
        if "key_cache" in vars(cache):
            cache.key_cache, cache.value_cache = cache.value_cache, cache.key_cache

    on_unflatten(patch, swap)


@bug("expect_round_trip")
def layer_dropped(patch):
    on_flatten(patch, lambda _, leaves, context: (leaves[:2], context[:2]))


@bug("expect_round_trip", "sliding-below")
def window_guessed_from_the_tensor(patch):
    def guess(cache):
        for layer in states(cache):
            layer.sliding_window = layer.keys.shape[-2]

    on_unflatten(patch, guess)


@bug("expect_round_trip", "sliding-past")
def counter_reset(patch):
    def reset(cache):
        for layer in states(cache):
            layer.cumulative_length = 0

    on_unflatten(patch, reset)


@bug("expect_same_behaviour", "sliding-past")
def counter_taken_from_the_shape(patch):
    def shape(cache):
        for layer in states(cache):
            layer.cumulative_length = layer.keys.shape[-2]

    on_unflatten(patch, shape)


@bug("expect_spec_constant_over_length", "sliding-past")
def counter_frozen_in_the_context(patch):
    for module in (origins, writing, plans, reading, fast):
        patch.setattr(module, "COUNTERS", frozenset())


@bug("expect_spec_constant_over_length")
def length_in_the_spec(patch):
    on_flatten(patch, lambda _, leaves, context: (leaves, [*context, f"#length={leaves[0].shape[-2]}"]))


@bug("expect_independent")
def alias_kept(patch):
    seen = []

    def remember(cache, leaves, context):
        seen.append(cache)
        return leaves, context

    on_flatten(patch, remember)
    on_unflatten(patch, lambda made: made.__dict__.update(vars(seen[-1])))


@bug("expect_round_trip")
def tensors_copied(patch):
    def copy(cache):
        for layer in states(cache):
            layer.keys = layer.keys.clone()
        if "key_cache" in vars(cache):
            cache.key_cache = [keys.clone() for keys in cache.key_cache]

    on_unflatten(patch, copy)


@bug("expect_round_trip", "dynamic-first-layer-skipped")
def skipped_layer_filled(patch):
    def fill(cache):
        for layer in states(cache):
            layer.keys = torch.zeros(0) if layer.keys is None else layer.keys
        if "key_cache" in vars(cache):
            cache.key_cache = [torch.zeros(1, 1, 0, 1) if not len(k) else k for k in cache.key_cache]

    on_unflatten(patch, fill)


@bug("expect_round_trip", "sliding-past")
def layer_class_lost(patch):
    def forget(cache):
        for layer in states(cache):
            layer.__class__ = probes.cache_class("DynamicLayer")

    on_unflatten(patch, forget)


@bug("expect_round_trip", "dynamic-float16")
def dtype_guessed(patch):
    def guess(cache):
        for layer in states(cache):
            layer.dtype = torch.float32
        cache._dtype = torch.float32

    on_unflatten(patch, guess)


@bug("expect_leaves_in_order")
def keys_first_then_values(patch):
    on_flatten(patch, lambda _, leaves, context: (leaves[::2] + leaves[1::2], context[::2] + context[1::2]))


@bug("expect_key_paths")
def key_paths_shared(patch):
    patch.setattr(flatten, "keyed", lambda _, children: pytree.keyed(["key"] * len(children), children))


@bug("expect_fx_agrees")
def fx_table_forgotten(patch):
    patch.setattr(fx_pytree, "register_pytree_flatten_spec", lambda *_: None)


@bug("expect_json_spec")
def context_is_no_json(patch):
    on_flatten(patch, lambda _, leaves, context: (leaves, tuple(context)))


@bug("expect_round_trip", "encoder-decoder")
def cross_attention_forgotten(patch):
    on_unflatten(patch, lambda cache: vars(cache).get("is_updated", {}).clear())


@bug("expect_round_trip", "encoder-decoder")
def caches_of_an_encoder_decoder_swapped(patch):
    def swap(cache):
        if hasattr(cache, "cross_attention_cache"):
            one, two = cache.self_attention_cache, cache.cross_attention_cache
            cache.self_attention_cache, cache.cross_attention_cache = two, one

    on_unflatten(patch, swap)


@bug("expect_round_trip", "static-below")
def maximum_length_lost(patch):
    def lose(cache):
        for layer in states(cache):
            layer.max_cache_len = 99
        if "max_cache_len" in vars(cache):
            cache.max_cache_len = 99

    on_unflatten(patch, lose)


@bug("expect_round_trip")
def original_touched(patch):
    def touch(cache, leaves, context):
        cache.seen = True
        return leaves, context

    on_flatten(patch, touch)


@bug("expect_same_new_layer")
def new_layers_forgotten(patch):
    def forget(cache):
        if not hasattr(cache, "layer_class_to_replicate"):
            pytest.skip("this release does not tell a cache which layers to add")
        cache.layer_class_to_replicate = None

    on_unflatten(patch, forget)


@bug("expect_registry_unchanged")
def registry_not_restored(patch):
    patch.setattr(pytree, "restore", lambda *_: None)


@bug("expect_registry_unchanged")
def registry_emptied(patch):
    """Classes that were registered before are removed on leaving, not put back."""
    patch.setattr(pytree, "restore", lambda _, classes: [pytree.remove(cls) for cls in classes])


@bug("expect_registry_unchanged")
def registry_put_back_with_equal_objects(patch):
    original = pytree._reinstate

    def wrong(saved):
        original(saved)
        pytree.py_pytree.SUPPORTED_NODES[saved.cls] = pytree.py_pytree.NodeDef(
            saved.cls, lambda _: ([], None), lambda *_: None, None
        )

    patch.setattr(pytree, "_reinstate", wrong)


@bug("expect_registry_unchanged")
def safe_globals_left_behind(patch):
    patch.setattr(torch.serialization, "clear_safe_globals", lambda: None)


@bug("expect_round_trip", "sliding-past")
def usual_layers_recognised_too_widely(patch):
    """The fast path takes a layer past its window for one below it."""
    patch.setattr(fast, "_is_below_window", lambda *_: True)


@bug("expect_round_trip", "sliding-past")
def counter_derived_from_any_shape(patch):
    patch.setattr(origins, "_is_expected_count", lambda *_: True)


# ---------------------------------------------------------------------------------------------- running them


@pytest.fixture
def _fresh(monkeypatch):
    """Tables, and what the shim has learnt, as found: a planted bug must not outlive its test."""
    # Have something registered that leaving must put back.
    importlib.import_module("transformers.modeling_outputs")
    register._nodes(patch_transformers=True)
    before = registry_snapshot()
    learned.reset()
    yield
    monkeypatch.undo()
    learned.reset()
    restore_registry(before)


def ask(found):
    """Ask the bug's check about its example."""
    example = BY_NAME[found.example]
    if found.check == "expect_registry_unchanged":
        before = registry_snapshot()
        with register_flattening_functions():
            pass
        expect_registry_unchanged(before)
        return
    with register_flattening_functions():
        if found.check == "expect_spec_constant_over_length":
            trees.expect_spec_constant_over_length(example.build(), example.build(length=example.length + 2))
        else:
            getattr(trees, found.check)(example.build())


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_noticed(name, monkeypatch):
    found = BUGS[name]
    for need in BY_NAME[found.example].needs:
        if not need.met():
            pytest.skip(f"this release lacks the example {found.example}")
    try:
        BY_NAME[found.example].build()
    except IndexError:
        pytest.skip(f"this release cannot make the example {found.example} (4.44 skips no layers)")
    ask(found)
    found.plant(monkeypatch)
    with pytest.raises(ExpectationError):
        ask(found)


def test_there_are_enough_of_them():
    assert len(BUGS) >= 15
