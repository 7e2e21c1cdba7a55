"""Two sets of records side by side: what was added, removed, regressed, fixed, and what cannot make up its mind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from matrix.errors import ExitCode
from matrix.judge.baseline import OURS
from matrix.judge.flaky import same_question
from matrix.records.lines import NOT_ASKED, WRONG, CellRun, Record, Status
from matrix.records.sources import read_latest

Kind = Literal["regressed", "flaky", "lost", "changed", "fixed", "added", "removed"]
"""`lost`: a cell that was measured can no longer be made. `changed`: one non-pass became another."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Change:
    """One difference; subject and id are empty where it is about a whole cell."""

    kind: Kind
    cell: str
    subject: str = ""
    id: str = ""
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        what = " ".join(part for part in (self.cell, self.subject, self.id) if part)
        states = f": {self.old or 'not there'} -> {self.new or 'not there'}"
        return f"{self.kind:<9} {what}{states}"

    def to_json(self) -> dict[str, Any]:
        """The change as `--format json` shows it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Change:
        """The inverse of `to_json`."""
        return cls(**data)


@dataclass(frozen=True)
class Comparison:
    """Every difference, the worst kind first."""

    changes: tuple[Change, ...]

    @property
    def exit_code(self) -> ExitCode:
        """1 where ours regressed, a cell was lost, or any check is flaky; 0 otherwise."""
        bad = any(
            change.kind in ("lost", "flaky") or (change.kind == "regressed" and change.subject == OURS)
            for change in self.changes
        )
        return ExitCode.REGRESSION if bad else ExitCode.OK

    def render(self) -> str:
        """The differences line by line, and how many of each kind."""
        kinds = [change.kind for change in self.changes]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds)
        return "\n".join([*(str(change) for change in self.changes), counts or "no difference"])

    def to_json(self) -> dict[str, Any]:
        """The comparison as `--format json` shows it."""
        return {"exit_code": int(self.exit_code), "changes": [change.to_json() for change in self.changes]}


def compare(old: Path | str, new: Path | str) -> Comparison:
    """Compare two folders or files of records, or git revisions (`HEAD~1`, `v1:reports/records`).

    Raises:
        UserError: one of them is neither, holds no record, or holds a malformed one.
    """
    return compare_runs(read_latest(old), read_latest(new))


def compare_runs(old: Sequence[CellRun], new: Sequence[CellRun]) -> Comparison:
    """Compare runs cell by cell."""
    before, after = ({run.cell: run for run in runs} for runs in (old, new))
    changes = [
        change
        for cell in sorted({*before, *after})
        for change in _cell_changes(cell, before.get(cell), after.get(cell))
    ]
    return Comparison(tuple(sorted(changes, key=lambda change: KINDS.index(change.kind))))


def kind_of(old: Status | None, new: Status | None, *, same: bool = False) -> Kind | None:
    """What became of a check; `same` tells that the two runs asked the same question.

    | old             | new                  | same question | another question |
    |-----------------|----------------------|---------------|------------------|
    | equal, or neither asked                | None          | None             |
    | any answer      | another answer       | flaky         | as below         |
    | pass, not asked | wrong                |               | regressed        |
    | wrong           | wrong in another way |               | changed          |
    | wrong           | pass                 |               | fixed            |
    | not asked       | pass                 |               | added            |
    | pass, wrong     | not asked            |               | removed          |

    "Not asked" is n/a, skipped, or not there; `missing` is wrong but no answer, so it is never flaky. A check that was
    not there and is wrong now is added: nothing was promised about it.
    """
    if old == new or (_silent(old) and _silent(new)):
        return None
    if same and old is not None and new is not None and "missing" not in (old, new):
        return "flaky"
    if new in WRONG:
        return "added" if old is None else "changed" if old in WRONG else "regressed"
    if new == "pass":
        return "fixed" if old in WRONG else "added"
    return "removed"


def _silent(status: Status | None) -> bool:
    return status is None or status in NOT_ASKED


def _cell_changes(cell: str, old: CellRun | None, new: CellRun | None) -> Iterator[Change]:
    if old is None or new is None:
        kind: Kind = "added" if old is None else "removed"
        yield Change(kind, cell, old=_extent(old), new=_extent(new))
    elif old.unresolved is not None or new.unresolved is not None:
        if (old.unresolved is None) != (new.unresolved is None):
            yield Change("lost" if new.unresolved is not None else "added", cell, old=_extent(old), new=_extent(new))
    else:
        yield from _check_changes(old, new)


def _check_changes(old: CellRun, new: CellRun) -> Iterator[Change]:
    before, after = ({(each.subject, each.id): each for each in run.records} for run in (old, new))
    same = same_question(old, new)
    for key in sorted({*before, *after}):
        # What a filtered or interrupted run lacks was not asked; that is no difference.
        if (key not in before and not old.whole) or (key not in after and not new.whole):
            continue
        statuses = _status(before.get(key)), _status(after.get(key))
        kind = kind_of(*statuses, same=same)
        if kind is not None:
            yield Change(kind, old.cell, *key, old=statuses[0] or "", new=statuses[1] or "")


def _status(record: Record | None) -> Status | None:
    return record.status if record else None


def _extent(run: CellRun | None) -> str:
    if run is None:
        return ""
    return "no install" if run.unresolved is not None else f"{len(run.records)} checks"
