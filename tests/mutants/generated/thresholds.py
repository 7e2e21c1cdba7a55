"""For each dimension: past a size, or at one, the order changes, or a tensor is copied, cast or cut, or the context."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from mutants.generated import Mutant
from mutants.generated.wiring import wire
from mutants.tools import on_values

_SIZES: dict[str, tuple[int, ...]] = {
    "layers": (1, 9, 32, 47),
    "batch": (1, 7, 64),
    "heads": (1, 4, 100),
    "length": (0, 1, 30, 300),
    "width": (1, 7, 64),
    "values": (1, 7, 64),
}
_TYPES = ("float64", "float16", "bfloat16", "float8_e4m3fn")
_DEVICES = ("meta", "cuda")


def mutants() -> list[Mutant]:
    """One mutant a dimension, size and effect."""
    found = []
    for dimension, sizes in _SIZES.items():
        for size in sizes:
            for how, meets in {"at": int.__eq__, "past": int.__gt__}.items():
                asked = functools.partial(_meets, dimension, size, meets)
                found += [
                    Mutant(f"thresholds/{dimension}-{how}-{size}/{name}", functools.partial(effect, asked))
                    for name, effect in _EFFECTS.items()
                ]
    for name in _TYPES:
        asked = functools.partial(_holds, "dtype", name)
        found += [
            Mutant(f"thresholds/{name}/{effect}", functools.partial(_EFFECTS[effect], asked))
            for effect in ("copied", "cast")
        ]
    for name in _DEVICES:
        asked = functools.partial(_holds, "device", name)
        found += [
            Mutant(f"thresholds/{name}/{effect}", functools.partial(_EFFECTS[effect], asked))
            for effect in ("copied", "cut")
        ]
    return found


def _states(leaves: list[Any]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim() == 4]


def _meets(dimension: str, size: int, meets: Callable[[int, int], bool], leaves: list[Any]) -> bool:
    states = _states(leaves)
    if not states:
        return False
    if dimension == "layers":
        return meets(len(states) // 2, size)
    if dimension == "values":
        return any(meets(int(state.shape[-1]), size) for state in states[1::2])
    place = {"batch": 0, "heads": 1, "length": 2, "width": 3}[dimension]
    return any(meets(int(state.shape[place]), size) for state in states[::2])


def _holds(attribute: str, name: str, leaves: list[Any]) -> bool:
    return any(str(getattr(state, attribute)).removeprefix("torch.").split(":")[0] == name for state in _states(leaves))


def _where(asked: Callable[[list[Any]], bool], change: Callable[[list[Any]], list[Any]]) -> None:
    wire(unflatten=on_values(lambda values: change(values) if asked(values) else values))


def _on_last(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[list[Any]], list[Any]]:
    def changed(values: list[Any]) -> list[Any]:
        last = max(index for index, one in enumerate(values) if isinstance(one, torch.Tensor) and one.dim() == 4)
        return [*values[:last], change(values[last]), *values[last + 1 :]]

    return changed


def _reordered(asked: Any) -> None:
    def change(values: list[Any]) -> list[Any]:
        first = _states(values)[:2]
        return [first[1] if one is first[0] else first[0] if one is first[-1] else one for one in values]

    _where(asked, lambda values: change(values) if len(_states(values)) > 1 else values)


def _copied(asked: Any) -> None:
    _where(asked, _on_last(torch.clone))


def _cast(asked: Any) -> None:
    _where(asked, _on_last(lambda one: one.to(torch.float32 if one.dtype != torch.float32 else torch.float64)))


def _cut(asked: Any) -> None:
    _where(asked, _on_last(lambda one: one[:, :, 1:]))


def _told(asked: Any) -> None:
    """The context says so: a structure of its own where there is none."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            return leaves, [context, asked(list(leaves))]

        return changed

    wire(flatten=wrap, unflatten=lambda unflatten: lambda values, context: unflatten(values, context[0]))


_EFFECTS = {"reordered": _reordered, "copied": _copied, "cast": _cast, "cut": _cut, "told": _told}
