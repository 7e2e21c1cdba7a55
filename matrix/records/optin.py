"""Answers to opt-in categories: published beside the answers to everything, in a file of their own.

A run that asks only opt-in categories (`--category onnx`) says nothing about the rest, so it never stands in for a
cell's record. `reports/optin.parquet` holds one run a cell: of each opt-in category and subject the newest answers. A
category may take an hour a subject, so one subject may be asked at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from matrix.cells import optin
from matrix.records.lines import CellRun, Record, Selection

NAME = "optin.parquet"
"""The file, beside the published records."""


def is_opt_in(run: CellRun) -> bool:
    """Whether a run asked whole opt-in categories, and nothing else."""
    asked = run.environment.selection
    return bool(asked.categories) and not asked.keyword and set(asked.categories) <= set(optin.CATEGORIES)


def split(runs: Iterable[CellRun]) -> tuple[list[CellRun], list[CellRun]]:
    """The runs that may stand for their cells, and those of opt-in categories."""
    every = list(runs)
    return [run for run in every if not is_opt_in(run)], [run for run in every if is_opt_in(run)]


def joined(runs: Iterable[CellRun]) -> list[CellRun]:
    """One run a cell, ordered by cell: of each opt-in category and subject the answers of the run that asked it last.

    The header is that of the latest run, with every category and subject that is there and every package that any of
    them had. An answer of an earlier run tells when it was asked.
    """
    cells: dict[str, CellRun] = {}
    for run in sorted(runs, key=lambda run: (run.cell, run.environment.started or "")):
        if run.unresolved is None and run.complete:
            cells[run.cell] = _added(cells[run.cell], run) if run.cell in cells else run
    return list(cells.values())


def asks(run: CellRun, record: Record) -> bool:
    """Whether a run asked the category and the subject of a record, so that its answers stand in for that one."""
    about = run.environment
    return record.category in about.selection.categories and record.subject in about.subjects


def _added(earlier: CellRun, run: CellRun) -> CellRun:
    about, before = run.environment, earlier.environment
    kept = [
        dataclasses.replace(record, asked=record.asked or before.started or "")
        for record in earlier.records
        if not asks(run, record)
    ]
    categories = tuple(dict.fromkeys([*before.selection.categories, *about.selection.categories]))
    environment = dataclasses.replace(
        about,
        selection=Selection(categories=tuple(sorted(categories))),
        packages={**before.packages, **about.packages},
        subjects=tuple(dict.fromkeys([*before.subjects, *about.subjects])),
    )
    return dataclasses.replace(run, environment=environment, records=(*kept, *run.records))
