"""Replaces the functions of cache classes in every table at once, so that a mutant is wrong in one way only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.fx._pytree as fx_pytree
import torch.utils._pytree as pytree

from kvconform.checks.needs import lookup
from mutants.tools import rewire

Flatten = Callable[[Any], tuple[list[Any], Any]]
Unflatten = Callable[[Any, Any], Any]


def cache_classes() -> list[type]:
    """Every cache class that is registered now: transformers' and the user's own, caches by name alone among them."""
    base = lookup("transformers.cache_utils:Cache")
    found = [cls for cls in pytree.SUPPORTED_NODES if isinstance(cls, type)]
    found = [cls for cls in found if issubclass(cls, base) or cls.__name__.endswith("Cache")]
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def wire(
    flatten: Callable[[Flatten], Flatten] | None = None,
    unflatten: Callable[[Unflatten], Unflatten] | None = None,
    classes: list[type] | None = None,
) -> None:
    """Wrap the functions of all cache classes, or of some; torch.fx flattens as torch.utils does."""
    for cls in cache_classes() if classes is None else classes:
        rewire(cls, flatten=flatten, unflatten=unflatten)
        if flatten is not None:
            changed = pytree.SUPPORTED_NODES[cls].flatten_fn
            fx_pytree.SUPPORTED_NODES[cls] = _for_fx(changed)


def _for_fx(flatten: Flatten) -> Callable[[Any, Any], list[Any]]:
    return lambda cache, spec: list(flatten(cache)[0])


def owners(cache: Any) -> list[Any]:
    """The cache and its layers, those of the caches inside it too."""
    state = vars(cache)
    parts = [state[name] for name in ("self_attention_cache", "cross_attention_cache") if name in state]
    layers = list(state.get("layers") or ())
    return [cache, *layers, *(owner for part in parts for owner in owners(part))]
