"""What a record means beside the baseline: ok, known, finding, regressed or fixed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from matrix.cells import optin
from matrix.errors import ExitCode
from matrix.judge.baseline import OWN, Baseline, BaselineRow, load_baseline
from matrix.records.lines import NOT_ASKED, CellRun, Record

__all__ = ["Baseline", "BaselineRow", "Verdict", "exit_code", "judge", "load_baseline", "policy"]

Judgement = Literal["ok", "known", "finding", "regressed", "fixed"]
"""`finding` is a non-pass of a subject that is not ours and that no row names: red in the table, no regression."""


@dataclass(frozen=True)
class Verdict:
    """A record and what it means.

    `row` is the baseline row that speaks about the record, also where the record answers otherwise than the row says.
    """

    record: Record
    verdict: Judgement
    row: BaselineRow | None = None


def policy(record: Record, row: BaselineRow | None) -> Judgement:
    """The verdict of one record.

    | status                              | no row: ours, others | row names the status | row names another |
    |-------------------------------------|----------------------|----------------------|-------------------|
    | pass                                | ok, ok               | (no row can)         | fixed             |
    | na, skip                            | ok, ok               | (no row can)         | ok                |
    | fail, error, crash, timeout, missing| regressed, finding   | known                | regressed         |

    A row that names another status regresses for other subjects too: the row says how they are known to end.

    Ours with patches may pass what a row of ours names: on that release a patch heals it.
    """
    if record.status in NOT_ASKED:
        return "ok"
    if record.status == "pass":
        return "fixed" if row and row.subject == record.subject else "ok"
    if row:
        return "known" if record.status in row.status else "regressed"
    return "regressed" if record.subject in OWN else "finding"


def judge(run: CellRun, baseline: Baseline) -> list[Verdict]:
    """A verdict a record, in the order of the records, then one `fixed` for each row that names no check of the run.

    A row is stale when no check of a whole run has its name. A filtered, interrupted or unresolved run lacks checks and
    makes no row stale. Neither does any run for an opt-in category, which is asked only where it is named.
    """
    rows = baseline.covering(run)
    verdicts = [_verdict(record, rows) for record in run.records]
    if run.whole:
        verdicts += [
            unmatched(row)
            for row in rows
            if row.subject in run.environment.subjects and not is_opt_in(row) and not _names_any(row, run)
        ]
    return verdicts


def exit_code(verdicts: Sequence[Verdict]) -> ExitCode:
    """0 when nothing regressed and no row is stale, 1 otherwise, 3 where there is no verdict at all."""
    if not verdicts:
        return ExitCode.EMPTY
    bad = any(verdict.verdict in ("regressed", "fixed") for verdict in verdicts)
    return ExitCode.REGRESSION if bad else ExitCode.OK


def _verdict(record: Record, rows: Iterable[BaselineRow]) -> Verdict:
    """The first row that names the record's status, else the first that names the record."""
    naming = [row for row in rows if row.names(record)]
    row = next((row for row in naming if record.status in row.status), naming[0] if naming else None)
    judgement = policy(record, row)
    return Verdict(record, judgement, None if judgement == "ok" else row)


def is_opt_in(row: BaselineRow) -> bool:
    """Whether a row is about a category that no run asks without being told."""
    # A row of alternatives, `{onnx/one,onnx/two}`, is of one category: no run can ask for half of it.
    return row.check.lstrip("{").partition("/")[0] in optin.CATEGORIES


def _names_any(row: BaselineRow, run: CellRun) -> bool:
    return any(row.names(record) for record in run.records)


def unmatched(row: BaselineRow) -> Verdict:
    """The verdict of a row that names no check of a cell: judged like a record, so that it is counted and shown."""
    record = Record(row.subject, row.check, "baseline", "missing", message="the row names no check of this cell")
    return Verdict(record, "fixed", row)
