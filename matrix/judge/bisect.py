"""The releases along an axis where a check changes its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matrix.cells.cell import Cell
from matrix.cells.ranges import nearest
from matrix.errors import EmptySelectionError, ExitCode, UserError
from matrix.records.lines import CellRun, Record

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
_Place = tuple[int, Record]


def bisect(cells: Sequence[Cell], ask: Ask) -> list[Flip]:
    """Find where a check changes its answer between the first and the last of ordered cells, asking few of them.

    A cell without an answer (no environment, skipped) is stepped over, as git bisect does. Where the check is n/a at
    one end, since those releases lack the class, the release where it begins or ends to apply is found first, then the
    flip among the releases where it applies; within these, n/a is stepped over.

    Returns:
        One flip; two where the check begins with another answer than it has at the other end, or ends so.

    Raises:
        UserError: both ends answer alike, or an end has no answer.
    """
    known: dict[int, Record | None] = {}

    def answer(at: int) -> Record | None:
        if at not in known:
            known[at] = ask(cells[at])
        return known[at]

    places = range(len(cells))
    first, last = _end(answer, places, "first"), _end(answer, places[::-1], "last")
    if first[0] >= last[0] or _kind(first[1]) == _kind(last[1]):
        message = f"both ends answer {first[1].status}: {cells[first[0]].id} and {cells[last[0]].id}; widen the range"
        raise UserError(message, "python -m matrix plan")
    if "na" not in (first[1].status, last[1].status):
        return [_flip(cells, *_search(_applying(answer), first, last, _passes))]
    low, high = _search(answer, first, last, _applies)
    flips = [_flip(cells, low, high)]
    begins = first[1].status == "na"
    inner = (high, last) if begins else (first, low)
    if _passes(inner[0][1]) != _passes(inner[1][1]):
        flips.append(_flip(cells, *_search(_applying(answer), *inner, _passes)))
    return flips if begins else flips[::-1]


def of_run(cell: Cell, run: CellRun, subject: str, check: str) -> Record | None:
    """The answer that a cell's run holds; None where it was skipped or never ended.

    Raises:
        EmptySelectionError: the run has no such check; the message names near misses.
    """
    if run.unresolved is not None:
        return None
    for record in run.records:
        if (record.subject, record.id) == (subject, check):
            return None if record.status in {"skip", "missing"} else record
    ids = [record.id for record in run.records if record.subject == subject]
    near = ", ".join(nearest(check, ids)) or "none"
    message = f"{cell.id} has no check {check!r} of {subject}; near misses: {near}"
    raise EmptySelectionError(message, "python -m matrix checks")


def _end(answer: _Answer, places: Sequence[int], name: str) -> _Place:
    for place in places[:MAX_SKIPPED]:
        record = answer(place)
        if record is not None:
            return place, record
    message = f"the {name} releases of the range have no answer"
    raise UserError(message, "python -m matrix plan", ExitCode.UNRESOLVED)


def _search(answer: _Answer, low: _Place, high: _Place, state: Callable[[Record], bool]) -> tuple[_Place, _Place]:
    """Narrow two places of different states down to two with no answer of either state between them."""
    before = state(low[1])
    while between := _answered_between(answer, low[0], high[0]):
        if state(between[1]) == before:
            low = between
        else:
            high = between
    return low, high


def _answered_between(answer: _Answer, low: int, high: int) -> _Place | None:
    """The place nearest to the middle that has an answer, None when there is none between."""
    middle = (low + high) // 2
    for place in sorted(range(low + 1, high), key=lambda place: abs(place - middle)):
        record = answer(place)
        if record is not None:
            return place, record
    return None


def _applying(answer: _Answer) -> _Answer:
    """The same answers, with n/a counted as none."""

    def applying(at: int) -> Record | None:
        record = answer(at)
        return record if record is not None and _applies(record) else None

    return applying


def _flip(cells: Sequence[Cell], low: _Place, high: _Place) -> Flip:
    return Flip(cells[low[0]], low[1], cells[high[0]], high[1], tuple(cells[low[0] + 1 : high[0]]))


def _applies(record: Record) -> bool:
    return record.status != "na"


def _passes(record: Record) -> bool:
    return record.status == "pass"


def _kind(record: Record) -> str:
    return record.status if record.status in ("pass", "na") else "fail"
