"""Cells split into jobs that take about equally long, the cells of one torch together where that allows it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.cells.cell import Cell, version_key
from matrix.records import parquet

SETUP = 60.0
"""Seconds that the first cell of a torch takes longer in a job: its wheels are fetched (12 to 28 s), and installed."""
SLACK = 5.0
"""Seconds by which the longest job may be longer than it has to be."""
UNKNOWN = 300.0
"""Seconds of a cell where no record tells of any."""


@dataclass(frozen=True)
class Job:
    """Some cells that one machine asks, one after the other.

    Attributes:
        cells: ordered by torch.
        seconds: how long they are expected to take, with one process in a cell.
    """

    cells: tuple[Cell, ...]
    seconds: float

    @property
    def torches(self) -> list[str]:
        """The torch minors, in order."""
        return list(dict.fromkeys(cell.torch for cell in self.cells))

    @property
    def name(self) -> str:
        """What people call it: `torch 2.15 with 4.44 to 4.57`, `torch 2.4, 2.5`."""
        if len(self.torches) > 1:
            return f"torch {', '.join(self.torches)}"
        first, last = self.cells[0].transformers, self.cells[-1].transformers
        return f"torch {self.torches[0]} with {first}" + (f" to {last}" if last != first else "")

    @property
    def select(self) -> str:
        """The glob over ids that selects its cells in their tier, on any device; braces nest."""
        groups = dict.fromkeys((cell.torch, cell.interpreter) for cell in self.cells)
        each = [self._glob(torch, python) for torch, python in groups]
        return each[0] if len(each) == 1 else f"{{{','.join(each)}}}"

    def _glob(self, torch: str, python: str) -> str:
        names = [cell.transformers for cell in self.cells if (cell.torch, cell.interpreter) == (torch, python)]
        return f"torch{torch}-tf{{{','.join(names)}}}-py{python}-*"


def expected(cells: Sequence[Cell], published: Path) -> dict[Cell, float]:
    """The seconds that each cell is expected to take: those of its checks when it was last published.

    A cell that was never published takes as long as the middle one of those that were. The device and the Python do not
    count, since most cells are published for one of each.
    """
    taken: dict[tuple[str, str], float] = {}
    if published.exists():
        runs, checks = parquet.read_columns(published)
        for row in checks.group_by(parquet.NUMBER).aggregate([("seconds", "sum")]).to_pylist():
            cell = Cell.parse(runs[row[parquet.NUMBER]].cell)
            taken[cell.torch, cell.transformers] = row["seconds_sum"]
    middle = statistics.median(taken.values()) if taken else UNKNOWN
    return {cell: taken.get((cell.torch, cell.transformers), middle) for cell in cells}


def split(seconds: Mapping[Cell, float], count: int) -> list[Job]:
    """Split cells into jobs of about equal length.

    Args:
        seconds: what each cell is expected to take.
        count: how many jobs, at most; there are no more than cells.

    Returns:
        The jobs, ordered by torch. The longest one is as short as the cells of a torch, taken in order, allow.
    """
    low, high = max(seconds.values(), default=0.0), SETUP * len(seconds) + sum(seconds.values())
    best = _fill(seconds, high)
    while high - low > SLACK:
        limit = (low + high) / 2
        jobs = _fill(seconds, limit)
        if len(jobs) <= count:
            best, high = jobs, limit
        else:
            low = limit
    made = [Job(tuple(sorted(each.cells, key=lambda cell: cell.order)), each.seconds) for each in best]
    return sorted(made, key=lambda job: job.cells[0].order)


@dataclass
class _Filling:
    """A job that grows."""

    cells: list[Cell]
    taken: float

    @property
    def seconds(self) -> float:
        return self.taken + SETUP * len({cell.torch for cell in self.cells})

    def with_(self, other: _Filling) -> float:
        """The seconds of both as one job."""
        return self.taken + other.taken + SETUP * len({cell.torch for cell in (*self.cells, *other.cells)})

    def add(self, other: _Filling) -> None:
        self.cells += other.cells
        self.taken += other.taken


def _fill(seconds: Mapping[Cell, float], limit: float) -> list[_Filling]:
    """Jobs no longer than a limit, but for single cells that are: pieces of a torch, the longest placed first."""
    pieces = [_Filling(cells, sum(seconds[cell] for cell in cells)) for cells in _pieces(seconds, limit)]
    jobs: list[_Filling] = []
    for piece in sorted(pieces, key=lambda piece: -piece.taken):
        room = next((job for job in jobs if job.taken + piece.taken < limit and job.with_(piece) <= limit), None)
        if room is None:
            jobs.append(piece)
        else:
            room.add(piece)
    return jobs


def _pieces(seconds: Mapping[Cell, float], limit: float) -> list[list[Cell]]:
    """The cells of each torch in as few equal pieces as the limit allows."""
    found: list[list[Cell]] = []
    for torch in sorted({cell.torch for cell in seconds}, key=version_key):
        cells = sorted((cell for cell in seconds if cell.torch == torch), key=lambda cell: cell.order)
        total, room = sum(seconds[cell] for cell in cells), max(limit - SETUP, 1.0)
        share = total / max(1, -(-total // room))
        piece: list[Cell] = []
        taken = 0.0
        for cell in cells:
            # The piece that a cell lies in by more than half is its own.
            if piece and (taken + seconds[cell] > room or taken + seconds[cell] / 2 > share):
                found.append(piece)
                piece, taken = [], 0.0
            piece.append(cell)
            taken += seconds[cell]
        found.append(piece)
    return found
