"""Everything that the pages and the data of the site show, worked out once from the results."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell, version_key
from matrix.judge.architectures import CATEGORY, Architecture, architectures
from matrix.judge.baseline import OURS
from matrix.judge.causes import Cause, causes
from matrix.judge.changes import ReleaseChanges, release_changes
from matrix.judge.failures import Failure, load_failures
from matrix.judge.goals import Answer, Goal, Pins, answers, load_goals, pins, with_opt_in
from matrix.judge.publications import Publication
from matrix.judge.table import JudgedTable
from matrix.records.lines import CellRun
from matrix.render.grid import Results

AXES = ("torch", "transformers")
MOST_NEIGHBOURS = 3
SUITE = 8
"""Letters of a suite's digest that tell it from others."""
Pair = tuple[str, str]
"""A torch and a transformers."""


@dataclass(frozen=True)
class Measured:
    """One cell that was measured: its run, what it answers for each subject, and its causes.

    `earliest` is when the oldest of its answers was asked, where the run took some over from an earlier one.
    """

    cell: Cell
    run: CellRun
    number: int
    answers: Mapping[str, Answer]
    causes: Sequence[Cause]
    earliest: str = ""

    @property
    def days(self) -> str:
        """When it was asked: "2026-11-25", or "2026-11-22 to 2026-11-25"; empty where the record does not tell."""
        last = (self.run.environment.started or "")[:10]
        first = min(self.earliest[:10] or last, last)
        return f"{first} to {last}" if first != last else last

    @property
    def suite(self) -> str:
        """The suite that asked it: the first letters of its digest, or an empty text."""
        return (self.run.environment.digest or "")[:SUITE]


@dataclass(frozen=True)
class Facts:
    """What the site shows.

    Attributes:
        results: the grids, with the runs and verdicts.
        goals: what people want to do.
        failures: the known failures.
        cells: every measured cell, by pair: the lane that most visitors ask about first.
        releases: by axis, every release that is known or was measured, oldest first.
        impossible: by pair, why no environment can be made of it.
        changes: by axis and release, what it broke and repaired against the one before.
        publications: what each publication changed, the latest first.
        architectures: which architectures export, by address; empty where nobody has asked.
        repository: the address of the repository, empty where it is not known.
    """

    results: Results
    goals: Sequence[Goal]
    failures: Sequence[Failure]
    cells: Mapping[Pair, Sequence[Measured]]
    releases: Mapping[str, Sequence[str]]
    impossible: Mapping[Pair, str]
    changes: Mapping[tuple[str, str], ReleaseChanges]
    pins: Mapping[str, Pins | None]
    repository: str = ""
    publications: Sequence[Publication] = ()
    architectures: Mapping[str, Architecture] = field(default_factory=dict)

    @property
    def judged(self) -> JudgedTable:
        """The verdicts."""
        assert self.results.judged is not None  # noqa: S101 - results of records always have them
        return self.results.judged

    @property
    def subjects(self) -> Sequence[str]:
        """The subjects in the order of the pages; one that was never measured is not among them."""
        return self.results.subjects

    @functools.cached_property
    def newest_suite(self) -> str:
        """The suite of the latest run."""
        every = [each for lane in self.cells.values() for each in lane if each.suite]
        return max(every, key=lambda each: each.run.environment.started or "").suite if every else ""

    @functools.cached_property
    def pairs(self) -> list[Pair]:
        """Every pair that has a page."""
        return [(torch, release) for torch in self.releases["torch"] for release in self.releases["transformers"]]

    def answer(self, pair: Pair, subject: str = OURS) -> Answer | None:
        """What the first lane of a pair answers."""
        measured = self.cells.get(pair)
        return measured[0].answers.get(subject) if measured else None

    def neighbours(self, pair: Pair) -> list[Pair]:
        """The measured pairs that are nearest: releases apart on both axes together, the same torch first."""
        known = [other for other in self.cells if self.answer(other) is not None and other != pair]
        return sorted(known, key=lambda other: self._distance(pair, other))[:MOST_NEIGHBOURS]

    def good_near(self, pair: Pair) -> Pair | None:
        """The nearest pair with the same torch or the same transformers that works with kvconform."""
        good = [
            other
            for other in self.cells
            if (other[0] == pair[0]) != (other[1] == pair[1])
            and (found := self.answer(other)) is not None
            and found.word == "yes"
        ]
        return min(good, key=lambda other: self._distance(pair, other), default=None)

    def _distance(self, one: Pair, other: Pair) -> tuple[int, int, Pair]:
        apart = [abs(self._order[axis][one[at]] - self._order[axis][other[at]]) for at, axis in enumerate(AXES)]
        return sum(apart), apart[0], other

    @functools.cached_property
    def _order(self) -> dict[str, dict[str, int]]:
        return {axis: {release: number for number, release in enumerate(self.releases[axis])} for axis in AXES}


def facts(results: Results, axes: Axes, repository: str = "", publications: Sequence[Publication] = ()) -> Facts:
    """Work out what the site shows.

    Raises:
        UserError: `goals.toml` or `failures.toml` is malformed, or does not fit the pages of docs/known-failures.
    """
    judged = results.judged
    assert judged is not None  # noqa: S101 - results of records always have them
    goals = load_goals()
    by_run, found, extra = causes(judged), answers(judged, goals), results.extra
    packages: dict[str, Mapping[str, str]] = {}
    on_request: dict[str, list[Cause]] = {}
    if extra is not None:
        found = with_opt_in(found, judged, extra, goals)
        packages = {run.cell: run.environment.packages for run in extra.table.runs}
        on_request = {run.cell: each for run, each in zip(extra.table.runs, causes(extra), strict=True)}
    cells: dict[Pair, list[Measured]] = {}
    shown: list[tuple[Cell, list[Cause]]] = []
    for place in results.places:
        own = {
            subject: found[place.number, subject] for subject in results.subjects if (place.number, subject) in found
        }
        run, earliest = judged.table.runs[place.number], judged.table.earliest.get(place.cell.id, "")
        every = [*by_run[place.number], *on_request.get(place.cell.id, ())]
        shown.append((place.cell, every))
        own_causes = [cause for cause in every if not cause.ids[0].startswith(f"{CATEGORY}/")]
        measured = Measured(place.cell, run, place.number, own, own_causes, earliest)
        cells.setdefault((place.cell.torch, place.cell.transformers), []).append(measured)
    releases = {
        axis: sorted({*axes.known(axis), *(getattr(each[0].cell, axis) for each in cells.values())}, key=version_key)
        for axis in AXES
    }
    impossible = {}
    for torch in releases["torch"]:
        for release in releases["transformers"]:
            reason = axes.why_not(Cell(torch, release))
            if reason and (torch, release) not in cells:
                impossible[torch, release] = reason
    for pair, each in cells.items():
        if each[0].run.unresolved is not None:
            impossible[pair] = each[0].run.unresolved
    failures = load_failures(judged.rows, shown)
    first_lane = {place.cell: place.number for place in results.grids[0]} if results.grids else {}
    changes = {(axis, each.release): each for axis in AXES for each in release_changes(judged, first_lane, axis)}
    return Facts(
        results=results,
        goals=goals,
        failures=failures,
        cells=cells,
        releases=releases,
        impossible=impossible,
        changes=changes,
        pins={goal.name: pins(judged, found, goal, packages=packages) for goal in goals},
        architectures=architectures([judged, extra]),
        repository=repository,
        publications=publications,
    )
