"""What a machine and the run that asks it tell each other; each message is a value that Dask's queues take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Work:
    """What a task is to do; the run tells it when the task begins, since some of it may be done already.

    Attributes:
        cells: ids of the cells.
        argv: the options of the session, as text.
        jobs: cells at once.
        workers: processes in a cell; None for the cores of the machine divided by the jobs.
        budget: bytes that environments and uv's cache may take.
        files: what the run has of earlier answers, compressed, by file name.
    """

    cells: list[str]
    argv: list[str]
    jobs: int
    workers: int | None
    budget: int
    files: dict[str, bytes]


@dataclass(frozen=True)
class Hello:
    """A task has begun on a machine, as the first or after another machine was lost."""

    attempt: str
    group: str
    machine: str


@dataclass(frozen=True)
class Began:
    """A cell has begun."""

    attempt: str
    cell: str


@dataclass(frozen=True)
class Lines:
    """What the suite wrote since the last message, and where in its file that begins: at 0, a new file does."""

    attempt: str
    cell: str
    at: int
    data: bytes


@dataclass(frozen=True)
class Done:
    """A cell has ended.

    Attributes:
        attempt: the task.
        cell: its id.
        seconds: how long it took.
        outcome: how it ended, as JSON.
        files: the records that it wrote, compressed, by file name.
        log: the end of its output.
    """

    attempt: str
    cell: str
    seconds: float
    outcome: str
    files: dict[str, bytes]
    log: bytes


@dataclass(frozen=True)
class Note:
    """Something that the user should know."""

    attempt: str
    text: str


Message = Hello | Began | Lines | Done | Note
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (Hello, Began, Lines, Done, Note)}


def pack(message: Message) -> dict[str, Any]:
    """The message as plain values."""
    return {"kind": type(message).__name__, **asdict(message)}


def unpack(found: dict[str, Any]) -> Message:
    """The inverse of `pack`."""
    values = dict(found)
    return _KINDS[values.pop("kind")](**values)
