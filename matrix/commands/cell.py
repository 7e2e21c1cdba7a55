"""One cell from beginning to end: asked, then judged and shown. The nox session calls this."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions, device_here
from matrix.collect import lifeline, locks, session
from matrix.collect.disk import is_full
from matrix.collect.outcome import Outcome
from matrix.collect.session import Collected, Command, Run
from matrix.errors import ExitCode, UserError
from matrix.judge.baseline import Baseline, load_baseline
from matrix.judge.verdicts import Verdict, exit_code, judge
from matrix.paths import Paths
from matrix.records import files
from matrix.records.lines import CellRun
from matrix.records.writing import writing_failed
from matrix.render.summary import summary


@dataclass(frozen=True)
class CellVerdict:
    """What a run means: the text to show, the counts of its checks, the exit code."""

    text: str
    counts: dict[str, int]
    exit_code: int
    complete: bool


def run_cell(cell: Cell, options: CellOptions, axes: Axes, paths: Paths, *, command: Command | None = None) -> int:
    """Run a cell and return the documented exit code; errors are printed, never raised.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the record was ended and kept.
    """
    run = Run(cell.on(device_here(options.device)), options, axes, paths)
    outcome = Outcome(run.cell.id)
    # A user is told at once that the cell is being asked; a run that begins after one that was killed waits for it.
    wait = lifeline.WAIT if lifeline.end_with_stdin() else 0.0
    try:
        with locks.hold(paths.locks / f"{run.cell.venv}.lock", f"cell {run.cell.id}", wait=wait):
            # A malformed baseline is an error before minutes are spent, not after.
            baseline = load_baseline(paths.baseline)
            outcome.exit_code = _conclude(session.collect(run, outcome, command), outcome, baseline)
    except (UserError, OSError) as error:
        shown = error if isinstance(error, UserError) else writing_failed(error)
        _print(shown)
        outcome.exit_code, outcome.error = shown.exit_code, shown.message
    except KeyboardInterrupt:
        outcome.exit_code, outcome.error = ExitCode.INTERRUPTED, "interrupted"
        raise
    finally:
        _save(outcome, paths)
    return outcome.exit_code


def judged(run: CellRun, baseline: Baseline) -> CellVerdict:
    """A run beside the baseline."""
    verdicts = judge(run, baseline)
    code = exit_code(verdicts) if run.complete else ExitCode.REGRESSION
    return CellVerdict(summary(run, verdicts), _counts(verdicts), int(code), run.complete)


def _conclude(collected: Collected, outcome: Outcome, baseline: Baseline) -> int:
    code, record = collected.code, collected.record
    if code in {ExitCode.USAGE, ExitCode.EMPTY, ExitCode.UNRESOLVED, ExitCode.INTERRUPTED}:
        outcome.error = f"the suite ended with code {code}; it said why above"
        return code
    if record is None:
        message = f"the suite ended with code {code} and left no record"
        raise UserError(message, collected.again, ExitCode.REGRESSION)
    started = time.monotonic()
    found = files.read(record)
    _tell_taken_over(found)
    verdict = judged(found, baseline)
    outcome.seconds["judge"] = time.monotonic() - started
    outcome.counts = verdict.counts
    print(verdict.text, flush=True)
    if not verdict.complete:
        why = "the disk is full" if is_full(record.parent) else f"the suite ended with code {code}"
        raise UserError(f"the record of {outcome.cell} is incomplete: {why}", collected.again, ExitCode.REGRESSION)
    return verdict.exit_code


def _tell_taken_over(run: CellRun) -> None:
    taken = sum(bool(record.asked) for record in run.records)
    if taken:
        asked = len(run.records) - taken
        print(f"{asked} checks were asked, {taken} answers of earlier runs still hold (--rerun asks all)", flush=True)


def _counts(verdicts: list[Verdict]) -> dict[str, int]:
    """How many verdicts of each kind, regressions and stale baseline rows first."""
    found: Counter[str] = Counter(each.record.status if each.verdict == "ok" else each.verdict for each in verdicts)
    return {name: found[key] for key, name in _NAMES.items() if found[key]}


def _save(outcome: Outcome, paths: Paths) -> None:
    try:
        outcome.save(paths)
    except OSError as error:
        print(f"warning: {outcome.cell}: the outcome could not be saved: {error.strerror}", file=sys.stderr)


def _print(error: UserError) -> None:
    if os.environ.get("KVCONFORM_TRACEBACK"):
        traceback.print_exception(error)
    print(error.render(), file=sys.stderr, flush=True)


_NAMES = {
    "regressed": "regressed",
    "fixed": "stale",
    "pass": "pass",
    "known": "known",
    "finding": "findings",
    "na": "n/a",
    "skip": "skipped",
}
