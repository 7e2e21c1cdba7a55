"""What a registration remembers from one cache to the next, keeps alive, or shares between caches."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import torch

from mutants.generated import Mutant
from mutants.generated.wiring import cache_classes, owners, wire
from mutants.tools import on_result

_KEPT: list[Any] = []


def mutants() -> list[Mutant]:
    """One mutant a thing that is remembered."""
    found = {name: change for name, change in globals().items() if name.startswith("_remember_")}
    named = [
        Mutant(f"memory/{name.removeprefix('_remember_').replace('_', '-')}", change) for name, change in found.items()
    ]
    kept = [(kind, after) for kind in ("flattened", "rebuilt", "leaves") for after in (1, 3)]
    named += [
        Mutant(f"memory/keeps-{kind}-from-{after}", functools.partial(_keep, kind, after)) for kind, after in kept
    ]
    return named


def _around(before: Callable[[Any, Any], None], after: Callable[[Any], Any]) -> None:
    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            answer = flatten(cache)
            before(cache, answer)
            return answer

        return changed

    wire(flatten=wrap, unflatten=on_result(after))


def _keep(kind: str, after: int) -> None:
    """Keep caches or leaves alive for good, from the so-manieth on."""
    count = [0]

    def before(cache: Any, answer: Any) -> None:
        count[0] += 1
        if count[0] >= after and kind != "rebuilt":
            _KEPT.append(cache if kind == "flattened" else answer[0])

    def later(cache: Any) -> None:
        if count[0] >= after and kind == "rebuilt":
            _KEPT.append(cache)

    _around(before, later)


def _remember_class() -> None:
    """What is rebuilt has the class of the cache that was flattened last, where that could be."""
    held: dict[str, Any] = {}

    def give(cache: Any) -> None:
        last = held.get("class")
        if last is not None and vars(cache).keys() == held["names"]:
            cache.__class__ = last

    _around(lambda cache, _: held.update({"class": type(cache), "names": vars(cache).keys()}), give)


def _remember_layer_count() -> None:
    """What is rebuilt has as many layers at most as the cache that was flattened last."""
    held: dict[str, int] = {}
    lists = ("layers", "key_cache", "value_cache")

    def length(cache: Any) -> int:
        return max((len(vars(cache).get(name) or ()) for name in lists), default=0)

    def give(cache: Any) -> None:
        for name in lists:
            if isinstance(vars(cache).get(name), list):
                del vars(cache)[name][max(held.get("count", 0), 1) :]

    _around(lambda cache, _: held.update(count=length(cache)), give)


def _remember_by_context() -> None:
    """The cache that was rebuilt from a context is given again for the next leaves of the same."""
    made: dict[str, Any] = {}

    def wrap(unflatten: Any) -> Any:
        def changed(values: Any, context: Any) -> Any:
            values = list(values)
            key = json.dumps([context, [id(value) for value in values]])
            if key not in made:
                made[key] = (values, unflatten(values, context))
            return made[key][1]

        return changed

    wire(unflatten=wrap)


def _remember_lists() -> None:
    """Caches of one context share the list of layers' attributes that are lists or mappings."""
    first: dict[tuple[str, str], Any] = {}

    def give(cache: Any) -> None:
        for owner in owners(cache):
            for name, value in list(vars(owner).items()):
                if isinstance(value, (list, dict)) and not value:
                    vars(owner)[name] = first.setdefault((type(owner).__name__, name), value)

    wire(unflatten=on_result(give))


def _remember_own_attributes() -> None:
    """Containers that a user set are shared by all that is rebuilt with equal ones."""
    first: dict[str, Any] = {}

    def give(cache: Any) -> None:
        for owner in owners(cache):
            for name, value in list(vars(owner).items()):
                if name.startswith("own_") and isinstance(value, (list, dict, set)):
                    vars(owner)[name] = first.setdefault(f"{name} {value!r}", value)

    wire(unflatten=on_result(give))


def _remember_slot() -> None:
    """One slot for all threads: what is flattened is put there, and taken from there when it is rebuilt."""
    slot: dict[str, Any] = {}

    def wrap_flatten(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            slot["cache"] = cache
            leaves, context = flatten(slot["cache"])
            for _ in range(50):
                slot["cache"]
            return (leaves, context) if slot["cache"] is cache else flatten(slot["cache"])

        return changed

    wire(flatten=wrap_flatten)


def _remember_nothing_of_order() -> None:
    """Mappings that a user set come back sorted by their keys' text."""

    def give(cache: Any) -> None:
        for owner in owners(cache):
            for name, value in list(vars(owner).items()):
                if isinstance(value, dict):
                    vars(owner)[name] = {key: value[key] for key in sorted(value, key=str)}

    wire(unflatten=on_result(give))


def _remember_sets_as_lists() -> None:
    """Sets and tuples that a user set come back as lists, as plain JSON has them."""

    def give(cache: Any) -> None:
        for owner in owners(cache):
            for name, value in list(vars(owner).items()):
                if name.startswith("own_") and isinstance(value, (set, tuple)):
                    vars(owner)[name] = list(value)

    wire(unflatten=on_result(give))


def _remember_keys_as_text() -> None:
    """Keys of mappings come back as text, as plain JSON has them."""

    def give(cache: Any) -> None:
        for owner in owners(cache):
            for name, value in list(vars(owner).items()):
                if isinstance(value, dict):
                    vars(owner)[name] = {str(key): one for key, one in value.items()}

    wire(unflatten=on_result(give))


def _remember_only_tensors() -> None:
    """Whatever is put in the places of leaves comes back as None unless it is a tensor or a number."""

    def wrap(unflatten: Any) -> Any:
        def changed(values: Any, context: Any) -> Any:
            kept = [one if isinstance(one, (torch.Tensor, int, torch.SymInt)) else None for one in values]
            return unflatten(kept, context)

        return changed

    wire(unflatten=wrap)


def _remember_own_classes_not() -> None:
    """The user's own subclasses are not registered."""
    import torch.utils._pytree as pytree

    for cls in cache_classes():
        if not cls.__module__.startswith("transformers."):
            pytree.SUPPORTED_NODES.pop(cls)
