"""Which answers of this machine become published answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matrix.cells.options import EVERY_SUBJECT, CellOptions
from matrix.records.lines import CellRun
from matrix.records.optin import asks, joined
from matrix.records.sources import latest

USUAL = (*EVERY_SUBJECT, "exporter")
"""The subjects whose answers to opt-in categories are published."""


@dataclass(frozen=True)
class Merged:
    """What is to be published.

    Attributes:
        runs: one run a cell.
        taken: the cells whose run is of this machine and was not published before.
        left: why a run of this machine is not published, by cell.
    """

    runs: tuple[CellRun, ...]
    taken: tuple[str, ...]
    left: Mapping[str, str]


def merge(published: Iterable[CellRun], own: Iterable[CellRun]) -> Merged:
    """Take runs of this machine over, each in place of the published run of its cell.

    | run of this machine              | published run            | what is published   |
    |----------------------------------|--------------------------|---------------------|
    | interrupted, or asked less       | any                      | what was            |
    | no environment could be made     | has checks               | what was            |
    | any other                        | started later, or is it  | what was            |
    | any other                        | started earlier, or none | the new one         |
    """
    runs = {run.cell: run for run in latest(published)}
    taken: list[str] = []
    left: dict[str, str] = {}
    for run in latest(own):
        why_not = _why_not(run, runs.get(run.cell))
        if why_not:
            left[run.cell] = why_not
        else:
            runs[run.cell] = run
            taken.append(run.cell)
    return Merged(tuple(runs[cell] for cell in sorted(runs)), tuple(taken), left)


def merge_opt_in(published: Iterable[CellRun], own: Iterable[CellRun]) -> Merged:
    """Take answers to opt-in categories over: complete runs of any of the usual subjects.

    What a run says of a category and a subject replaces what was published of both for the cell; the rest stays.
    """
    before = list(published)
    left: dict[str, str] = {}
    new: list[CellRun] = []
    for run in own:
        about = run.environment
        reasons = [
            (not run.complete, "the run did not reach its end"),
            (run.unresolved is not None, f"no environment could be made for {about.selection}"),
            (not set(about.subjects) <= set(USUAL), f"subjects that only this run has: {', '.join(about.subjects)}"),
            (any(_has(each, run) for each in before), "it is published already"),
        ]
        why_not = next((why for holds, why in reasons if holds), "")
        if why_not:
            left[run.cell] = why_not
        else:
            new.append(run)
    return Merged(tuple(joined([*before, *new])), tuple(f"{run.cell} {run.environment.selection}" for run in new), left)


def _has(published: CellRun, run: CellRun) -> bool:
    """Whether a published run has the answers of a run, or later ones to the same categories and subjects."""
    about = published.environment
    there = set(run.environment.selection.categories) <= set(about.selection.categories)
    there = there and set(run.environment.subjects) <= set(about.subjects)
    when = [record.asked or about.started or "" for record in published.records if asks(run, record)]
    return published.cell == run.cell and there and min(when, default="") >= (run.environment.started or "")


def _why_not(run: CellRun, published: CellRun | None) -> str:
    about, resolved = run.environment, run.unresolved is None
    reasons = [
        (not run.complete, "the run did not reach its end"),
        (bool(about.selection), f"only {about.selection} was asked"),
        (resolved and not CellOptions().asks(about.subjects), f"only {', '.join(about.subjects)} was asked"),
    ]
    if published:
        count, day = len(published.records), published.environment.started or ""
        lost = f"no environment could be made here, and the published answer has {count} checks"
        reasons += [
            (run == published, "it is published already"),
            (not resolved and published.unresolved is None, lost),
            ((about.started or "") <= day, f"the published answer is newer: {day}"),
        ]
    return next((why for holds, why in reasons if holds), "")
