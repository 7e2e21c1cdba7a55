"""Checks that a cell never planned although its suite holds them: a smaller plan must not look like a better result.

A suite plans the same checks on every release and answers n/a where a release lacks something. A cell that planned less
lost checks while they were collected, and without this its remaining passes would add up to a tick.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from matrix.records.lines import CellRun, Record

MESSAGE = "never planned here, though other cells with the same suite planned it"


def with_unplanned(runs: Iterable[CellRun]) -> list[CellRun]:
    """The runs, each whole one with a `missing` record for every check that its suite planned in another cell.

    Runs belong to the same suite when they tell the same digest; one that tells none is left as it is.
    """
    runs = list(runs)
    plans: dict[str, dict[str, str]] = {}
    for run in filter(_comparable, runs):
        plan = plans.setdefault(run.environment.digest or "", {})
        plan.update((record.id, record.category) for record in run.records)
    return [_filled(run, plans[run.environment.digest or ""]) if _comparable(run) else run for run in runs]


def _comparable(run: CellRun) -> bool:
    return run.whole and run.environment.digest is not None


def _filled(run: CellRun, plan: dict[str, str]) -> CellRun:
    planned = {(record.subject, record.id) for record in run.records}
    lost = tuple(
        Record(subject, name, category, "missing", message=MESSAGE)
        for subject in run.environment.subjects
        for name, category in plan.items()
        if (subject, name) not in planned
    )
    return dataclasses.replace(run, records=run.records + lost) if lost else run
