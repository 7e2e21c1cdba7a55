"""The blocks in which cache classes are registered: nested, in threads, and with classes that are created inside.

torch's tables are of the process. A block remembers what it found, and puts that back when it ends. Blocks of several
threads may end in any order, so that one may end while a later one is still running: it then leaves the tables alone,
and hands what it found to the next block, which puts it back.

A class that is created while a block runs belongs to all blocks that watch. It becomes a node at once, stays one until
the last of them ends, and is then as it was when it was created. Blocks that begin later leave it as it is,
unless their nodes are of another kind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from kvconform import probes, pytree
from kvconform.arrivals import Watch
from kvconform.pytree import Node, Registration, Snapshot

__all__ = ["Block", "arrive", "enter", "leave", "make_known"]

_LOCK = threading.RLock()


@dataclass(eq=False)
class Block:
    """One block.

    Attributes:
        before: what torch's tables said when it began.
        watches: whether classes that are created inside become nodes.
        counted: whether its nodes give a sliding layer one structure for all lengths.
        done: the classes that it registered, each with what the tables said of it before.
        safe: the classes that it made known to torch's safe unpickler.
    """

    before: Snapshot
    watches: bool
    counted: bool
    done: dict[type, Registration] = field(default_factory=dict)
    safe: set[type] = field(default_factory=set)


class _MakeNode(Protocol):
    def __call__(self, cls: type, /, *, counted: bool) -> Node: ...


@dataclass
class _Late:
    """A class that was created inside: what the tables said then, how its nodes are made, and which one is in force."""

    before: Registration
    make: _MakeNode
    counted: bool


_ACTIVE: list[Block] = []
_LATE: dict[type, _Late] = {}
_WATCHES: list[Watch] = []


def enter(
    register: Callable[[Iterable[type]], dict[type, Registration]],
    safe: Callable[[], Iterable[type]],
    watch: Callable[[], Watch] | None,
    *,
    counted: bool,
) -> Block:
    """Begin a block.

    Args:
        register: registers all classes but these, and says what the tables said before. It must not import anything.
        safe: the classes that pickled example inputs name.
        watch: makes the watch for new classes, which is started if no block watches yet; None: this block does not.
        counted: whether its nodes give a sliding layer one structure for all lengths.
    """
    with _LOCK:
        block = Block(pytree.snapshot(), watches=watch is not None, counted=counted)
        if watch is not None and not _WATCHES:
            _WATCHES.append(watch())
            _WATCHES[0].start()
        _ACTIVE.append(block)
        try:
            block.done = register(_LATE)
            _make_safe(block, safe())
            _remake_late()
        except BaseException:
            leave(block)
            raise
        return block


def leave(block: Block) -> None:
    """End a block, in whichever order."""
    with _LOCK:
        position = _ACTIVE.index(block)
        del _ACTIVE[position]
        if position < len(_ACTIVE):
            _hand_over(block, _ACTIVE[position])
        else:
            classes = {*block.done, *(probes.cache_classes() if block.watches else ())}
            pytree.restore(block.before, classes - (_LATE.keys() - block.done.keys()))
            _make_unsafe(block.safe)
        if _WATCHES and not any(one.watches for one in _ACTIVE):
            _WATCHES.pop().stop()
            for late in reversed(_LATE.values()):
                pytree.put(late.before)
            _LATE.clear()
        _remake_late()


def arrive(cls: type, make: _MakeNode) -> None:
    """Register a class that was created inside, once, if a block watches."""
    with _LOCK:
        watching = [block for block in _ACTIVE if block.watches]
        if not watching or cls in _LATE:
            return
        # A block that another thread has just begun can have seen the class before it was told of here.
        seen = [block.done.pop(cls) for block in _ACTIVE if cls in block.done]
        counted = watching[-1].counted
        _LATE[cls] = _Late(seen[0] if seen else pytree.current(cls), make, counted)
        pytree.put(make(cls, counted=counted))
        _make_safe(watching[0], [cls])


def make_known(classes: Iterable[type]) -> None:
    """Let torch's safe unpickler accept classes that were created inside and are no nodes: layers of caches."""
    with _LOCK:
        watching = [block for block in _ACTIVE if block.watches]
        if watching:
            _make_safe(watching[0], classes)


def _remake_late() -> None:
    """Have the nodes of classes that were created inside be of the kind of the latest block that watches."""
    watching = [block for block in _ACTIVE if block.watches]
    for cls, late in _LATE.items():
        if late.counted != watching[-1].counted:
            late.counted = watching[-1].counted
            pytree.put(late.make(cls, counted=late.counted))


def _hand_over(block: Block, following: Block) -> None:
    """Have a block that runs on put back what one that ended before it had found."""
    following.before = block.before
    following.done = {**following.done, **block.done}
    following.safe |= block.safe


def _make_safe(block: Block, classes: Iterable[type]) -> None:
    """Let `torch.load(weights_only=True)` accept these classes.

    torch.serialization.safe_globals does the same since 2.5; 2.4 has only the functions below.
    """
    known = torch.serialization.get_safe_globals()
    added: list[Any] = [cls for cls in classes if cls not in known]
    torch.serialization.add_safe_globals(added)
    block.safe |= {*added}


def _make_unsafe(classes: set[type]) -> None:
    kept = [entry for entry in torch.serialization.get_safe_globals() if entry not in classes]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(kept)
