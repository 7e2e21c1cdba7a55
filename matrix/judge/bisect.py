"""`python -m matrix bisect`: the first release along an axis where a check changes its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.cells.cell import Cell
from matrix.cells.ranges import nearest
from matrix.errors import EmptySelectionError, ExitCode, UserError
from matrix.records import files
from matrix.records.files import Record

MAX_SKIPPED = 5
"""Neighbours that are asked when a release has no answer, before giving up."""


@dataclass(frozen=True)
class Flip:
    """Where an answer changes: the last cell with the old one, the first with the new one, and what lies between."""

    before: Cell
    old: Record
    after: Cell
    new: Record
    unanswered: tuple[Cell, ...] = ()

    def __str__(self) -> str:
        names = ", ".join(cell.id for cell in self.unanswered)
        between = f"\n  no answer between them: {names}" if names else ""
        return (
            f"{self.new.subject} {self.new.id}: {self.old.status} until {self.before.id}, "
            f"{self.new.status} since {self.after.id}{between}\n  {self.new.message or self.old.message}"
        )


Ask = Callable[[Cell], Record | None]
"""Answers the check in a cell; None where the cell or the check has no answer."""

_Answer = Callable[[int], Record | None]


def bisect(cells: Sequence[Cell], ask: Ask) -> Flip:
    """Find the flip between the first and the last of ordered cells, asking as few as possible.

    An answer is "pass" or not; a release without one (unresolved, n/a, skipped) is stepped over, as git bisect does.

    Raises:
        UserError: both ends answer alike, or an end has no answer.
    """
    known: dict[int, Record | None] = {}

    def answer(at: int) -> Record | None:
        if at not in known:
            known[at] = ask(cells[at])
        return known[at]

    places = range(len(cells))
    (low, old), (high, new) = _end(answer, places, "first"), _end(answer, places[::-1], "last")
    if low >= high or _passes(old) == _passes(new):
        message = f"both ends answer {old.status}: {cells[low].id} and {cells[high].id}; widen the range"
        raise UserError(message, "python -m matrix plan")
    while between := _answered_between(answer, low, high):
        if _passes(between[1]) == _passes(old):
            low, old = between
        else:
            high, new = between
    return Flip(cells[low], old, cells[high], new, tuple(cells[low + 1 : high]))


def from_record(cell: Cell, path: Path, subject: str, check: str) -> Record | None:
    """The answer that a cell's record holds.

    Raises:
        EmptySelectionError: the record is complete and has no such check; the message names near misses.
    """
    run = files.read(path)
    if run.unresolved is not None:
        return None
    for record in run.records:
        if (record.subject, record.id) == (subject, check):
            return None if record.status in {"na", "skip", "missing"} else record
    ids = [record.id for record in run.records if record.subject == subject]
    near = ", ".join(nearest(check, ids)) or "none"
    message = f"{cell.id} has no check {check!r} of {subject}; near misses: {near}"
    raise EmptySelectionError(message, "python -m matrix checks")


def _end(answer: _Answer, places: Sequence[int], name: str) -> tuple[int, Record]:
    for place in places[:MAX_SKIPPED]:
        record = answer(place)
        if record is not None:
            return place, record
    message = f"the {name} releases of the range have no answer"
    raise UserError(message, "python -m matrix plan", ExitCode.UNRESOLVED)


def _answered_between(answer: _Answer, low: int, high: int) -> tuple[int, Record] | None:
    """The place nearest to the middle that has an answer, None when there is none between."""
    middle = (low + high) // 2
    for place in sorted(range(low + 1, high), key=lambda place: abs(place - middle)):
        record = answer(place)
        if record is not None:
            return place, record
    return None


def _passes(record: Record) -> bool:
    return record.status == "pass"
