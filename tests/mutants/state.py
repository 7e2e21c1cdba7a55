"""Counters, windows and lengths that come back otherwise, and caches that share what they must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kvconform.checks.needs import lookup
from mutants.plant import each, mutant
from mutants.tools import layers_of, on_result


def _layers(change: Callable[[Any], Any], attribute: str) -> None:
    """Change every layer that has an attribute, after unflattening."""

    def on_cache(cache: Any) -> None:
        for layer in layers_of(cache):
            if attribute in layer.__dict__:
                change(layer)

    each(unflatten=on_result(on_cache))


def _remembering(held: dict[str, Any]) -> Callable[[Any], Any]:
    """Keep the cache that was flattened last."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            held["cache"] = cache
            return flatten(cache)

        return changed

    return wrap


@mutant
def returns_the_original() -> None:
    """Unflattening gives back the very cache that was flattened last."""
    held: dict[str, Any] = {}

    each(
        flatten=_remembering(held),
        unflatten=on_result(lambda cache: held.get("cache") if type(held.get("cache")) is type(cache) else cache),
    )


@mutant
def shares_the_layers() -> None:
    """The restored cache shares its list of layers with the original."""
    held: dict[str, Any] = {}

    def share(cache: Any) -> None:
        original = held.get("cache")
        for name in ("layers", "key_cache", "value_cache"):
            if original is not None and type(original) is type(cache) and cache.__dict__.get(name) is not None:
                cache.__dict__[name] = original.__dict__[name]

    each(flatten=_remembering(held), unflatten=on_result(share))


@mutant
def flatten_changes_the_cache() -> None:
    """Flattening leaves a mark on the original."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            cache.__dict__["flattened"] = True
            return flatten(cache)

        return changed

    each(flatten=wrap)


@mutant
def attribute_added() -> None:
    """The restored cache has an attribute that no cache has."""
    each(unflatten=on_result(lambda cache: cache.__dict__.update(restored=True)))


@mutant
def length_zero() -> None:
    """Counters of lengths come back as 0; on the list path the count of seen tokens does."""
    _layers(lambda layer: setattr(layer, "cumulative_length", layer.cumulative_length * 0), "cumulative_length")
    each(
        unflatten=on_result(
            lambda cache: cache.__dict__.update(_seen_tokens=0) if "_seen_tokens" in cache.__dict__ else None
        )
    )


@mutant
def length_from_shape() -> None:
    """The counter of a sliding layer is taken from its tensor, also past the window."""

    def change(layer: Any) -> None:
        if (
            hasattr(layer, "sliding_window")
            and isinstance(layer.cumulative_length, int)
            and isinstance(layer.keys, torch.Tensor)
        ):
            layer.cumulative_length = layer.keys.shape[-2]

    _layers(change, "cumulative_length")


@mutant
def length_off_by_one() -> None:
    """Counters of lengths come back one too large; on the list path the count of seen tokens does."""
    _layers(lambda layer: setattr(layer, "cumulative_length", layer.cumulative_length + 1), "cumulative_length")
    each(
        unflatten=on_result(
            lambda cache: (
                cache.__dict__.update(_seen_tokens=cache._seen_tokens + 1) if "_seen_tokens" in cache.__dict__ else None
            )
        )
    )


@mutant
def window_from_shape() -> None:
    """A sliding layer's window is inferred from its tensor."""

    def change(layer: Any) -> None:
        if isinstance(layer.keys, torch.Tensor):
            layer.sliding_window = layer.keys.shape[-2]

    _layers(change, "sliding_window")


@mutant
def window_lost() -> None:
    """Sliding layers come back as plain growing layers."""

    def change(cache: Any) -> None:
        plain = lookup("transformers.cache_utils:DynamicLayer")
        for layer in layers_of(cache):
            if type(layer).__name__ == "DynamicSlidingWindowLayer":
                layer.__class__ = plain

    each(unflatten=on_result(change))


@mutant
def maximum_lost() -> None:
    """Static caches come back with another maximum length."""
    _layers(lambda layer: setattr(layer, "max_cache_len", layer.max_cache_len + 1), "max_cache_len")
    each(
        unflatten=on_result(
            lambda cache: cache.__dict__.update(max_cache_len=1) if "max_cache_len" in cache.__dict__ else None
        )
    )


@mutant
def initialization_forgotten() -> None:
    """Layers come back as if nothing had been written: the next update starts over."""
    _layers(lambda layer: setattr(layer, "is_initialized", False), "is_initialized")
    each(
        unflatten=on_result(
            lambda cache: cache.__dict__.update(key_cache=[], value_cache=[]) if "key_cache" in cache.__dict__ else None
        )
    )


@mutant
def growth_forgotten() -> None:
    """A cache that grows on demand comes back as one that does not (or, of lists, without ``_seen_tokens``)."""

    def change(cache: Any) -> None:
        for name in ("layer_class_to_replicate", "layer_classes", "_seen_tokens"):
            if cache.__dict__.get(name) is not None:
                cache.__dict__[name] = None

    each(unflatten=on_result(change))
