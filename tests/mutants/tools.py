"""Replaces parts of a correct registration by wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.fx._pytree as fx_pytree
import torch.utils._pytree as pytree

from kvconform.checks.needs import lookup

NAMES = ("DynamicCache", "StaticCache", "EncoderDecoderCache")
Flatten = Callable[[Any], tuple[list[Any], Any]]


def classes() -> list[type]:
    """The cache classes that are registered now."""
    found = [lookup(f"transformers.cache_utils:{name}") for name in NAMES]
    return [cls for cls in found if cls in pytree.SUPPORTED_NODES]


def rewire(
    cls: type,
    flatten: Callable[[Flatten], Flatten] | None = None,
    unflatten: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    with_keys: Callable[[Any], Any] | None = None,
) -> None:
    """Wrap the functions of a node in the table of ``torch.utils._pytree``.

    What wraps the flattening wraps the one with paths too.
    """
    node = pytree.SUPPORTED_NODES[cls]
    keyed = node.flatten_with_keys_fn
    if flatten is not None:
        keyed = _keyed(flatten(node.flatten_fn))
    pytree.SUPPORTED_NODES[cls] = type(node)(
        cls,
        flatten(node.flatten_fn) if flatten else node.flatten_fn,
        unflatten(node.unflatten_fn) if unflatten else node.unflatten_fn,
        with_keys(keyed) if with_keys else keyed,
    )


def _keyed(flatten: Flatten) -> Callable[[Any], Any]:
    def flatten_with_keys(cache: Any) -> Any:
        leaves, context = flatten(cache)
        return [(pytree.SequenceKey(index), leaf) for index, leaf in enumerate(leaves)], context

    return flatten_with_keys


def rewire_fx(cls: type, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change the leaves that the tables of ``torch.fx._pytree`` give."""
    original = fx_pytree.SUPPORTED_NODES[cls]
    fx_pytree.SUPPORTED_NODES[cls] = lambda cache, spec: change(list(original(cache, spec)))


def on_leaves(change: Callable[[list[Any]], list[Any]]) -> Callable[[Flatten], Flatten]:
    """Wrap a flatten function: change its leaves."""

    def wrap(flatten: Flatten) -> Flatten:
        def changed(cache: Any) -> tuple[list[Any], Any]:
            leaves, context = flatten(cache)
            return change(list(leaves)), context

        return changed

    return wrap


def on_values(change: Callable[[list[Any]], list[Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wrap an unflatten function: change what it is given."""
    return lambda unflatten: lambda values, context: unflatten(change(list(values)), context)


def on_result(change: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wrap an unflatten function: change what it returns (in place, or by returning another)."""

    def wrap(unflatten: Callable[..., Any]) -> Callable[..., Any]:
        def changed(values: Any, context: Any) -> Any:
            cache = unflatten(values, context)
            other = change(cache)
            return cache if other is None else other

        return changed

    return wrap


def layers_of(cache: Any) -> list[Any]:
    """The layers of a cache on the layers path, none on the list path."""
    return list(getattr(cache, "__dict__", {}).get("layers") or [])
