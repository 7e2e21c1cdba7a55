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
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from kvconform.arrivals import Watch
from kvconform.patches.patch import Patch, Replacement

__all__ = ["enter", "in_force", "leave"]

_ABSENT = object()


@dataclass
class _Place:
    """One place where something was replaced.

    Attributes:
        owner: a module, a class or a dict.
        name: the attribute, or the key.
        before: what stood there, or that nothing did.
        layers: what was replaced there since and not taken back, in order; each is made of the one before it.
    """

    owner: Any
    name: str
    before: Any
    layers: list[Replacement] = field(default_factory=list)

    @property
    def key(self) -> tuple[int, str]:
        """The same for every replacement at this place."""
        return id(self.owner), self.name

    def add(self, replacement: Replacement) -> None:
        """Have what is made of what stands here stand here."""
        self._put(replacement.make(_made_of(self._stands())))
        self.layers.append(replacement)

    def remove(self, replacement: Replacement) -> None:
        """Have what would stand here without this replacement stand here."""
        self.layers = [layer for layer in self.layers if layer is not replacement]
        self._put(self.before)
        for layer in self.layers:
            self._put(layer.make(_made_of(self._stands())))

    def _stands(self) -> Any:
        return _entries(self.owner).get(self.name, _ABSENT)

    def _put(self, value: Any) -> None:
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
    replaced: list[Replacement]


_LOCK = threading.RLock()
_HELD: dict[str, _Held] = {}
_PLACES: dict[tuple[int, str], _Place] = {}
_WATCHES: list[Watch] = []


def enter(patch: Patch) -> None:
    """Put a patch in place, unless a block that has not ended did.

    Where another patch in force has replaced the same thing, this one is made of what that one put there. Whichever is
    taken back first, the other stays.
    """
    with _LOCK:
        if patch.name not in _HELD:
            _HELD[patch.name] = _Held(patch, 0, _apply(patch.replacements()))
            _watch()
        _HELD[patch.name].blocks += 1


def leave(patch: Patch) -> None:
    """Take a patch back, if this is the last block that leaves it."""
    with _LOCK:
        held = _HELD[patch.name]
        held.blocks -= 1
        if not held.blocks:
            del _HELD[patch.name]
            _undo(held.replaced)
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
        for held in _HELD.values():
            if held.patch.of_module is not None:
                held.replaced += _apply(held.patch.of_module(module))


def _apply(replacements: Iterable[Replacement]) -> list[Replacement]:
    done: list[Replacement] = []
    try:
        for replacement in replacements:
            place = _place_of(replacement)
            place.add(replacement)
            _PLACES[place.key] = place
            done.append(replacement)
    except BaseException:
        _undo(done)
        raise
    return done


def _undo(replacements: list[Replacement]) -> None:
    for replacement in reversed(replacements):
        place = _place_of(replacement)
        place.remove(replacement)
        if not place.layers:
            del _PLACES[place.key]


def _place_of(replacement: Replacement) -> _Place:
    owner, name = replacement.owner, replacement.name
    place = _Place(owner, name, _entries(owner).get(name, _ABSENT))
    return _PLACES.get(place.key, place)


def _made_of(standing: Any) -> Any:
    return None if standing is _ABSENT else standing


def _entries(owner: Any) -> dict[str, Any]:
    return owner if isinstance(owner, dict) else vars(owner)
