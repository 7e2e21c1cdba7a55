"""A cell's record judged, as the session shows it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from matrix.errors import ExitCode
from matrix.judge.baseline import load_baseline
from matrix.judge.verdicts import Verdict, exit_code, judge
from matrix.records import files
from matrix.render.summary import summary


@dataclass(frozen=True)
class Judged:
    """What a record means: the text to show, the counts of its checks, the exit code."""

    text: str
    counts: dict[str, int]
    exit_code: int
    complete: bool


def judge_record(path: Path, baseline: Path) -> Judged:
    """Read a record and put it beside the baseline.

    Raises:
        UserError: the record or the baseline is malformed.
    """
    run = files.read(path)
    verdicts = judge(run, load_baseline(baseline))
    code = exit_code(verdicts) if run.complete else ExitCode.REGRESSION
    return Judged(summary(run, verdicts), _counts(verdicts), int(code), run.complete)


def _counts(verdicts: list[Verdict]) -> dict[str, int]:
    """What matters first: regressions, stale rows, then what passed, is known, is a finding about others, or n/a."""
    found: Counter[str] = Counter(each.record.status if each.verdict == "ok" else each.verdict for each in verdicts)
    return {name: found[key] for key, name in _NAMES.items() if found[key]}


_NAMES = {
    "regressed": "regressed",
    "fixed": "stale",
    "pass": "pass",
    "known": "known",
    "finding": "findings",
    "na": "n/a",
    "skip": "skipped",
}
