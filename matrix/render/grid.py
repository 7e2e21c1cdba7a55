"""Counts into a grid: which releases stand where, and what each place says."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from matrix.cells.cell import Cell, version_key
from matrix.judge.baseline import NATIVE, OURS, PATCHED, Baseline, BaselineRow
from matrix.judge.flaky import Flake
from matrix.judge.table import JudgedTable, Table, judge_table, table_of, with_unplanned
from matrix.judge.tally import ALL, State, Tally, state_of
from matrix.judge.verdicts import Verdict
from matrix.records.lines import CellRun

CATEGORIES = (
    "registration",
    "round-trip",
    "behaviour",
    "export",
    "dynamic-shape",
    "archive",
    "device",
    "model",
    "recipe",
    "kvcache",
)
"""The order in which categories are shown; others follow by name."""


_NOTHING = Tally()


@dataclass(frozen=True)
class Place:
    """One place of a grid: a cell, its run if there is one (without its records), and its counts."""

    cell: Cell
    run: CellRun | None = None
    tallies: Mapping[tuple[str, str], Tally] = field(default_factory=dict)
    judged: JudgedTable | None = None
    number: int = 0

    def tally(self, subject: str, category: str = ALL) -> Tally:
        """The counts of a subject in a category, or in all of them."""
        return self._tallies.get((subject, category), _NOTHING)

    def state(self, subject: str, category: str = ALL) -> State:
        """What the place shows for a subject in a category."""
        key = (subject, category)
        if key not in self._states:
            self._states[key] = state_of(self.run, self.tally(subject, category))
        return self._states[key]

    @functools.cached_property
    def _tallies(self) -> dict[tuple[str, str], Tally]:
        sums: dict[tuple[str, str], Tally] = {}
        for (subject, _), tally in self.tallies.items():
            key = (subject, ALL)
            sums[key] = sums[key] + tally if key in sums else tally
        return {**self.tallies, **sums}

    @functools.cached_property
    def _states(self) -> dict[tuple[str, str], State]:
        # Filled when asked: a page asks for each state several times, and a large one for few of them.
        return {}

    def verdicts(self, subject: str | None = None) -> list[Verdict]:
        """The verdicts of a subject, or of all, that need words: everything but ok."""
        return self.judged.verdicts(self.number, subject) if self.judged else []

    def not_asked(self, subject: str) -> list[Verdict]:
        """The checks that said nothing: n/a or skipped."""
        return self.judged.not_asked(self.number, subject) if self.judged else []


@dataclass(frozen=True)
class Grid:
    """The places of one Python, with what is installed beside, and one device: torch across, transformers down."""

    python: str
    extra: str
    device: str
    torches: tuple[str, ...]
    transformers: tuple[str, ...]
    places: Mapping[tuple[str, str], Place]

    def at(self, torch: str, transformers: str) -> Place:
        """The place of two releases; one that was never measured says so."""
        place = self.places.get((torch, transformers))
        return place or Place(Cell(torch, transformers, self.python, self.device, self.extra))

    @property
    def title(self) -> str:
        """What its cells have in common: `Python 3.11, cpu`, `Python 3.11 with optree, cpu`."""
        return f"Python {self.python}{f' with {self.extra}' if self.extra else ''}, {self.device}"

    def __iter__(self) -> Iterator[Place]:
        """The measured places, transformers first."""
        return (
            self.places[torch, transformers]
            for transformers in self.transformers
            for torch in self.torches
            if (torch, transformers) in self.places
        )


@dataclass(frozen=True)
class Results:
    """Everything that is published: the pages differ only in how they show this.

    `bad` tells a line for each file of records that could not be read, and is left out. `extra` are the verdicts of
    opt-in categories, which count in no place: they were asked in runs of their own.
    """

    grids: tuple[Grid, ...]
    subjects: tuple[str, ...]
    categories: tuple[str, ...]
    judged: JudgedTable | None = None
    unused: tuple[BaselineRow, ...] = ()
    flakes: tuple[Flake, ...] = ()
    bad: tuple[str, ...] = ()
    extra: JudgedTable | None = None

    @property
    def places(self) -> list[Place]:
        """Every measured place."""
        return [place for grid in self.grids for place in grid]

    @functools.cached_property
    def dates(self) -> tuple[str, str]:
        """The first and the last day of measurement, from the records (an empty text where they tell none)."""
        runs = [place.run for place in self.places if place.run]
        days = sorted(run.environment.started[:10] for run in runs if run.environment.started)
        return (days[0], days[-1]) if days else ("", "")

    @functools.cached_property
    def digests(self) -> tuple[str, ...]:
        """The digests of the suites behind the records: with more than one, cells differ in what they were asked."""
        runs = [place.run for place in self.places if place.run]
        return tuple(sorted({run.environment.digest for run in runs if run.environment.digest}))

    def total(self, subject: str, category: str = ALL) -> Tally:
        """The counts over every cell."""
        return sum((place.tally(subject, category) for place in self.places), Tally())

    def states(self, subject: str, category: str = ALL) -> dict[State, int]:
        """How many measured cells show each state."""
        states = [place.state(subject, category) for place in self.places]
        return {state: states.count(state) for state in dict.fromkeys(states)}


def results(runs: Iterable[CellRun], baseline: Baseline) -> Results:
    """Runs at hand: fill up plans, judge, count and lay out. The same runs and baseline give the same results."""
    return results_of(table_of(runs), baseline)


def results_of(table: Table, baseline: Baseline) -> Results:
    """The same of a table."""
    judged = judge_table(with_unplanned(table), baseline)
    tallies = judged.tallies()
    places = [
        Place(Cell.parse(run.cell), run, tallies.get(run.cell, {}), judged, number)
        for number, run in enumerate(judged.table.runs)
    ]
    subjects = {subject for run in judged.table.runs for subject in run.environment.subjects}
    subjects |= {subject for each in tallies.values() for subject, _ in each}
    categories = {category for each in tallies.values() for _, category in each}
    return Results(
        grids=_grids(places),
        subjects=_ordered(subjects, (OURS, PATCHED, NATIVE)),
        categories=_ordered(categories, CATEGORIES),
        judged=judged,
        unused=judged.unused,
    )


def _grids(places: Iterable[Place]) -> tuple[Grid, ...]:
    """One grid a Python, what is beside it, and a device, the fullest first: the one most visitors ask about."""
    lanes: dict[tuple[str, str, str], list[Place]] = {}
    for place in places:
        lanes.setdefault((place.cell.python, place.cell.extra, place.cell.device), []).append(place)
    order = sorted(lanes.items(), key=lambda lane: (-len(lane[1]), version_key(lane[0][0]), lane[0][1:]))
    return tuple(_grid(*lane, at) for lane, at in order)


def _grid(python: str, extra: str, device: str, places: Sequence[Place]) -> Grid:
    torches = sorted({place.cell.torch for place in places}, key=version_key, reverse=True)
    transformers = sorted({place.cell.transformers for place in places}, key=version_key, reverse=True)
    at = {(place.cell.torch, place.cell.transformers): place for place in places}
    return Grid(python, extra, device, tuple(torches), tuple(transformers), at)


def _ordered(names: Iterable[str], first: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name)))
