"""For each attribute that a cache or layer of this release has: lost, another layer's, or an earlier cache's."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch

from kvconform.checks.caches import EXAMPLES
from kvconform.checks.observe import same
from mutants.generated import Mutant
from mutants.generated.wiring import owners, wire
from mutants.tools import on_result

_ABSENT = object()


def mutants() -> list[Mutant]:
    """One mutant an attribute and fault."""
    found = []
    for (cls, name), layer in sorted(_attributes().items()):
        faults = {"lost": _lose, "reset": _reset, "earlier": _earlier, **({"neighbour": _neighbour} if layer else {})}
        for fault, make in faults.items():
            found.append(Mutant(f"attributes/{cls}.{name}/{fault}", functools.partial(make, cls, name)))
    return found


@functools.cache
def _attributes() -> dict[tuple[str, str], bool]:
    """(class name, attribute) of everything in the example caches; whether the class is a layer's."""
    found: dict[tuple[str, str], bool] = {}
    for example in EXAMPLES:
        if not all(need.met() for need in example.needs):
            continue
        try:
            made = owners(example.build())
        except Exception:  # noqa: BLE001 - a release that cannot make it has no attributes of it
            continue
        for owner in made:
            is_layer = (
                "layers" not in vars(owner) and "key_cache" not in vars(owner) and "Layer" in type(owner).__name__
            )
            found |= {(type(owner).__name__, name): is_layer for name in _names(owner)}
    return found


def _names(owner: Any) -> list[str]:
    # What every module has is torch's, not a cache's (caches were modules until 4.49).
    skipped = set(vars(torch.nn.Module())) if isinstance(owner, torch.nn.Module) else set()
    return [name for name in vars(owner) if name not in skipped]


def _each(cls: str, name: str, change: Callable[[Any, list[Any]], None]) -> None:
    def on_cache(cache: Any) -> None:
        mine = [owner for owner in owners(cache) if type(owner).__name__ == cls and name in vars(owner)]
        for owner in mine:
            change(owner, mine)

    wire(unflatten=on_result(on_cache))


def _lose(cls: str, name: str) -> None:
    _each(cls, name, lambda owner, _: vars(owner).pop(name, None))


def _reset(cls: str, name: str) -> None:
    _each(cls, name, lambda owner, _: vars(owner).update({name: _new(vars(owner)[name])}))


def _new(value: Any) -> Any:
    """What an attribute of the kind of ``value`` is in a new instance, or otherwise than it is."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return type(value)(0) if value else type(value)(1)
    if isinstance(value, (list, dict, set, tuple)):
        return type(value)() if value else None
    if isinstance(value, torch.Tensor):
        return None if value.dim() else torch.zeros_like(value)
    return 0 if value is None else None


def _neighbour(cls: str, name: str) -> None:
    def on_cache(cache: Any) -> None:
        mine = [owner for owner in owners(cache) if type(owner).__name__ == cls and name in vars(owner)]
        values = [vars(owner)[name] for owner in mine]
        for owner, value in zip(mine, values[1:] + values[:1], strict=True):
            vars(owner)[name] = value

    wire(unflatten=on_result(on_cache))


def _earlier(cls: str, name: str) -> None:
    """Whatever the first cache had whose value differed from its first: one value stays for all later caches."""
    held: dict[str, Any] = {}

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            answer = flatten(cache)
            for owner in owners(cache):
                if type(owner).__name__ == cls and name in vars(owner):
                    held.setdefault("value", _copied(vars(owner)[name]))
            return answer

        return changed

    def give(owner: Any, _: list[Any]) -> None:
        if held.get("value", _ABSENT) is not _ABSENT and not same(held["value"], vars(owner)[name]):
            vars(owner)[name] = held["value"]

    def on_cache(cache: Any) -> None:
        for owner in owners(cache):
            if type(owner).__name__ == cls and name in vars(owner):
                give(owner, [])

    wire(flatten=wrap, unflatten=on_result(on_cache))


def _copied(value: Any) -> Any:
    return value if isinstance(value, torch.Tensor) else copy.copy(value)
