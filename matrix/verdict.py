"""A cell's record judged, as the session shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matrix import judge, records
from matrix.errors import ExitCode
from matrix.summary import summary

BASELINE = Path(__file__).with_name("baseline.toml")


@dataclass(frozen=True)
class Judged:
    """What a record means: the text to show, the counts by verdict, the exit code."""

    text: str
    counts: dict[str, int]
    exit_code: int
    complete: bool


def judge_record(path: Path, baseline: Path = BASELINE) -> Judged:
    """Read a record and put it beside the baseline.

    Raises:
        UserError: the record or the baseline is malformed.
    """
    run = records.read(path)
    verdicts = judge.judge(run, judge.load_baseline(baseline))
    counts = {status: count for status, count in run.counts().items() if count}
    for verdict in verdicts:
        if verdict.verdict != "ok":
            counts[verdict.verdict] = counts.get(verdict.verdict, 0) + 1
    code = judge.exit_code(verdicts) if run.complete else ExitCode.REGRESSION
    return Judged(summary(run, verdicts), counts, int(code), run.complete)
