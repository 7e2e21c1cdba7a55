"""Which patches are in force, and what stood in their places before.

Patches are of the process, as modules are: what one thread enters, every thread sees. A patch is put in place by the
first block that enters it and taken back by the last one that leaves it, in whichever threads and in whichever order
the blocks end. A lock guards entering and leaving, not what is done inside.

A model's module is often imported inside the block. A patch that names what to replace in such a module
(`Patch.of_module`) is put in place there as soon as the module is complete, and taken back with the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from kvconform.arrivals import Watch
from kvconform.errors import KVConformError
from kvconform.patches.patch import Patch, Replacement

__all__ = ["enter", "in_force", "leave"]

_ABSENT = object()


@dataclass
class _Place:
    """One place where something was replaced. `before` is what stood there, or that nothing did."""

    owner: Any
    name: str
    before: Any

    @classmethod
    def of(cls, replacement: Replacement) -> _Place:
        return cls(replacement.owner, replacement.name, _entries(replacement.owner).get(replacement.name, _ABSENT))

    @property
    def key(self) -> tuple[int, str]:
        """The same for every replacement at this place."""
        return id(self.owner), self.name

    def put(self, value: Any) -> None:
        """Have `value` stand here; what stood nowhere before is removed."""
        if isinstance(self.owner, dict):
            if value is _ABSENT:
                self.owner.pop(self.name, None)
            else:
                self.owner[self.name] = value
        elif value is not _ABSENT:
            setattr(self.owner, self.name, value)
        elif self.name in vars(self.owner):
            delattr(self.owner, self.name)


@dataclass
class _Held:
    """A patch in force: how many blocks are inside, and what it replaced, in order."""

    patch: Patch
    blocks: int
    places: list[_Place]


_LOCK = threading.RLock()
_HELD: dict[str, _Held] = {}
_WATCHES: list[Watch] = []


def enter(patch: Patch) -> None:
    """Put a patch in place, unless a block that has not ended did.

    Raises:
        KVConformError: another patch in force has replaced the same thing.
    """
    with _LOCK:
        if patch.name not in _HELD:
            _HELD[patch.name] = _Held(patch, 0, _apply(patch.name, patch.replacements()))
            _watch()
        _HELD[patch.name].blocks += 1


def leave(patch: Patch) -> None:
    """Take a patch back, if this is the last block that leaves it."""
    with _LOCK:
        held = _HELD[patch.name]
        held.blocks -= 1
        if not held.blocks:
            del _HELD[patch.name]
            _undo(held.places)
            _watch()


def in_force() -> tuple[str, ...]:
    """The names of the patches that are in place now."""
    with _LOCK:
        return tuple(_HELD)


def _watch() -> None:
    """Watch for modules as long as a patch in force wants to know of them."""
    wanted = any(held.patch.of_module for held in _HELD.values())
    if wanted and not _WATCHES:
        _WATCHES.append(Watch((), lambda _: None, _arrived))
        _WATCHES[0].start()
    elif _WATCHES and not wanted:
        _WATCHES.pop().stop()


def _arrived(module: ModuleType) -> None:
    with _LOCK:
        for name, held in _HELD.items():
            if held.patch.of_module is not None:
                held.places += _apply(name, held.patch.of_module(module))


def _apply(name: str, replacements: Iterable[Replacement]) -> list[_Place]:
    done: list[_Place] = []
    try:
        for replacement in replacements:
            place = _Place.of(replacement)
            _refuse_what_another_replaced(name, place)
            place.put(replacement.make(None if place.before is _ABSENT else place.before))
            done.append(place)
    except BaseException:
        _undo(done)
        raise
    return done


def _refuse_what_another_replaced(name: str, place: _Place) -> None:
    for other, held in _HELD.items():
        if any(place.key == taken.key for taken in held.places):
            raise KVConformError(
                f"the patches {other!r} and {name!r} replace the same thing, {place.name}: "
                "whichever is left first would undo the other; enter one of them: patch_functions(name)"
            )


def _undo(places: list[_Place]) -> None:
    for place in reversed(places):
        place.put(place.before)


def _entries(owner: Any) -> dict[str, Any]:
    return owner if isinstance(owner, dict) else vars(owner)
