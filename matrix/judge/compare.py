"""Two sets of records side by side: what was added, removed, regressed, fixed, and what cannot make up its mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from matrix.errors import ExitCode
from matrix.judge.baseline import OWN, Baseline, load_baseline
from matrix.judge.findings import some, without_context
from matrix.judge.flaky import same_question
from matrix.records.lines import NOT_ASKED, WRONG, CellRun, Record, Status
from matrix.records.sources import read_latest

Kind = Literal["regressed", "flaky", "lost", "changed", "newly asked", "fixed", "added", "removed"]
"""`lost`: a cell that was measured can no longer be made. `changed`: one non-pass became another. `added`: a cell.
`newly asked`: a check that was n/a, skipped or not there, so that nothing was promised about it."""

KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_CAUSES = 6
"""Causes of a kind on a page."""
MOST_LETTERS = 120
"""Of a message on a page."""


@dataclass(frozen=True)
class Change:
    """One difference; subject and id are empty where it is about a whole cell.

    Attributes:
        message: what the check says where it does not pass, the later run first.
        failure: the known failure that a baseline row names for it, `vmap-masks`, or an empty text.
    """

    kind: Kind
    cell: str
    subject: str = ""
    id: str = ""
    old: str = ""
    new: str = ""
    message: str = ""
    failure: str = ""

    def __str__(self) -> str:
        what = " ".join(part for part in (self.cell, self.subject, self.id) if part)
        states = f": {self.old or 'not there'} -> {self.new or 'not there'}"
        return f"{self.kind:<11} {what}{states}"

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
            change.kind in ("lost", "flaky") or (change.kind == "regressed" and change.subject in OWN)
            for change in self.changes
        )
        return ExitCode.REGRESSION if bad else ExitCode.OK

    @property
    def counts(self) -> str:
        """How many differences of each kind, as the last line says it."""
        kinds = Counter(change.kind for change in self.changes)
        return ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kind in kinds) or "no difference"

    def render(self) -> str:
        """The differences line by line, and how many of each kind."""
        return "\n".join([*(str(change) for change in self.changes), self.counts])

    def page(self) -> str:
        """The differences as a page: a line a cause, the most frequent of each kind, and how many were left out."""
        lines = []
        for kind in KINDS:
            found = causes(change for change in self.changes if change.kind == kind)
            lines += [_line(kind, cause) for cause in found[:MOST_CAUSES]]
            if len(found) > MOST_CAUSES:
                rest = sum(len(cause) for cause in found[MOST_CAUSES:])
                lines.append(f"{kind:<11} and {len(found) - MOST_CAUSES} more causes, {rest} differences: --all")
        return "\n".join([*lines, self.counts])

    def to_json(self) -> dict[str, Any]:
        """The comparison as `--format json` shows it."""
        return {"exit_code": int(self.exit_code), "changes": [change.to_json() for change in self.changes]}


def compare(old: Path | str, new: Path | str) -> Comparison:
    """Compare two folders or files of records, or git revisions (`HEAD~1`, `v1:reports/records`).

    Raises:
        UserError: one of them is neither, holds no record, or holds a malformed one.
    """
    return compare_runs(read_latest(old), read_latest(new), load_baseline())


def compare_runs(old: Sequence[CellRun], new: Sequence[CellRun], baseline: Baseline = Baseline()) -> Comparison:  # noqa: B008 - frozen
    """Compare runs cell by cell; the baseline tells which known failure a check has."""
    before, after = ({run.cell: run for run in runs} for runs in (old, new))
    changes = [
        change
        for cell in sorted({*before, *after})
        for change in _cell_changes(cell, before.get(cell), after.get(cell), baseline)
    ]
    return Comparison(tuple(sorted(changes, key=lambda change: KINDS.index(change.kind))))


def kind_of(old: Status | None, new: Status | None, *, same: bool = False) -> Kind | None:
    """What became of a check; `same` tells that the two runs asked the same question.

    | old             | new                  | same question | another question |
    |-----------------|----------------------|---------------|------------------|
    | equal, or neither asked                | None          | None             |
    | any answer      | another answer       | flaky         | as below         |
    | pass            | wrong                |               | regressed        |
    | wrong           | wrong in another way |               | changed          |
    | wrong           | pass                 |               | fixed            |
    | not asked       | pass, wrong          |               | newly asked      |
    | pass, wrong     | not asked            |               | removed          |

    "Not asked" is n/a, skipped, or not there; `missing` is wrong but no answer, so it is never flaky.
    """
    if old == new or (_silent(old) and _silent(new)):
        return None
    if same and old is not None and new is not None and "missing" not in (old, new):
        return "flaky"
    if _silent(new):
        return "removed"
    if _silent(old):
        return "newly asked"
    if new == "pass":
        return "fixed"
    return "changed" if old in WRONG else "regressed"


def causes(changes: Iterable[Change]) -> list[list[Change]]:
    """Differences by kind, subject and cause: the worst kind first, of each the most frequent cause first."""
    groups: dict[tuple[str, str, str], list[Change]] = {}
    for change in changes:
        cause = change.failure or without_context(change.message) or f"{change.old} -> {change.new}"
        # Cells as a whole are told together, however many checks each has.
        groups.setdefault((change.kind, change.subject, cause if change.id else ""), []).append(change)
    return sorted(groups.values(), key=lambda group: (KINDS.index(group[0].kind), -len(group)))


def _line(kind: Kind, cause: Sequence[Change]) -> str:
    first, cells = cause[0], list(dict.fromkeys(change.cell for change in cause))
    where = some(cells, 1)
    if not first.id:
        extents = dict.fromkeys(f"{each.old or 'not there'} -> {each.new or 'not there'}" for each in cause)
        return f"{kind:<11} {some(cells, MOST_CAUSES)}: {some(list(extents), MOST_CAUSES)}"
    checks = list(dict.fromkeys(change.id for change in cause))
    states = f"{first.old or 'not there'} -> {first.new or 'not there'}"
    why = f"known, {first.failure}" if first.failure else " ".join(first.message.split())
    why = f": {why[:MOST_LETTERS]}{'...' if len(why) > MOST_LETTERS else ''}" if why else ""
    return f"{kind:<11} {first.subject}: {some(checks, 1)}, {states}, in {where}{why}"


def _silent(status: Status | None) -> bool:
    return status is None or status in NOT_ASKED


def _cell_changes(cell: str, old: CellRun | None, new: CellRun | None, baseline: Baseline) -> Iterator[Change]:
    if old is None or new is None:
        kind: Kind = "added" if old is None else "removed"
        yield Change(kind, cell, old=_extent(old), new=_extent(new))
    elif old.unresolved is not None or new.unresolved is not None:
        if (old.unresolved is None) != (new.unresolved is None):
            yield Change("lost" if new.unresolved is not None else "added", cell, old=_extent(old), new=_extent(new))
    else:
        yield from _check_changes(old, new, baseline)


def _check_changes(old: CellRun, new: CellRun, baseline: Baseline) -> Iterator[Change]:
    before, after = ({(each.subject, each.id): each for each in run.records} for run in (old, new))
    same = same_question(old, new)
    rows = baseline.covering(new)
    for key in sorted({*before, *after}):
        # What a filtered or interrupted run lacks was not asked; that is no difference.
        if (key not in before and not old.whole) or (key not in after and not new.whole):
            continue
        statuses = _status(before.get(key)), _status(after.get(key))
        kind = kind_of(*statuses, same=same)
        if kind is not None:
            tells = next((one for one in (after.get(key), before.get(key)) if one and one.status in WRONG), None)
            failure = next(
                (row.failure for row in rows if tells and row.names(tells) and tells.status in row.status), ""
            )
            message = tells.message if tells else ""
            yield Change(kind, old.cell, *key, statuses[0] or "", statuses[1] or "", message, failure)


def _status(record: Record | None) -> Status | None:
    return record.status if record else None


def _extent(run: CellRun | None) -> str:
    if run is None:
        return ""
    return "no install" if run.unresolved is not None else f"{len(run.records)} checks"
