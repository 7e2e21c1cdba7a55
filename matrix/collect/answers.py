"""The answers that there are already, on this machine and published, and whether they still hold."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matrix.cells import optin
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect.digest import Counts, Suite, counts
from matrix.errors import UserError
from matrix.paths import Paths
from matrix.records import files, parquet
from matrix.records.lines import CellRun, Selection

Where = Literal["recorded", "published"]


@dataclass(frozen=True)
class Answer:
    """An answer to a request.

    Attributes:
        cell: the id of the cell.
        place: `recorded` on this machine, or `published`.
        path: the file that holds it.
        why_again: why the cell has to be asked again, empty where the answer holds.
        current: how many of its answers are about the present sources.
        total: how many answers it has.
        asked: when it was asked, as ISO 8601.
    """

    cell: str
    place: Where
    path: Path
    why_again: str = ""
    current: int = 0
    total: int = 0
    asked: str = ""

    @property
    def holds(self) -> bool:
        """Whether it answers the request as a new run would."""
        return not self.why_again

    def run(self) -> CellRun:
        """The whole run.

        Raises:
            UserError: the file was changed or removed since.
        """
        if self.place == "recorded":
            return files.read(self.path)
        runs = parquet.read(self.path, [self.cell])
        if not runs:
            raise UserError(f"{self.path} no longer holds {self.cell}", "python -m matrix plan")
        return runs[-1]


@dataclass(frozen=True)
class Answers:
    """Finds what was answered to a request. The published file is read once, without its checks.

    Attributes:
        paths: where the answers lie.
        options: the request. Published answers are to everything: they are no answer to a narrower request.
        suite: the present sources.
    """

    paths: Paths
    options: CellOptions
    suite: Suite

    def of(self, cell: Cell) -> Answer | None:
        """The answer that holds, that of this machine first; else the one of which most is current; or None."""
        found = list(self._all(cell))
        return max(found, key=lambda answer: (answer.holds, answer.current), default=None)

    def _all(self, cell: Cell) -> Iterator[Answer]:
        path = self.options.folder(self.paths) / f"{cell.id}.jsonl"
        if path.exists():
            run = _read(path)
            yield self._answer(cell, "recorded", path, run, counts([run] if run else []))
        for run, answers in reversed(self._published.get(cell.id, [])):
            yield self._answer(cell, "published", self.paths.published, run, answers)

    @functools.cached_property
    def _published(self) -> dict[str, list[tuple[CellRun, Counts]]]:
        if self.options.partial or self.options.records or not self.paths.published.exists():
            return {}
        found: dict[str, list[tuple[CellRun, Counts]]] = {}
        for run, answers in parquet.read_counts(self.paths.published):
            found.setdefault(run.cell, []).append((run, answers))
        return found

    def _answer(self, cell: Cell, place: Where, path: Path, run: CellRun | None, answers: Counts) -> Answer:
        if run is None:
            return Answer(cell.id, place, path, "its record cannot be read")
        current, total = self.suite.current(answers), sum(answers.values())
        why = self._why_again(cell, run, answers)
        return Answer(cell.id, place, path, why, current, total, run.environment.started or "")

    def _why_again(self, cell: Cell, run: CellRun, answers: Counts) -> str:
        about = run.environment
        day = f"the answer of {about.started[:10]}" if about.started else "the answer"
        selection = Selection(self.options.keyword, self.options.categories)
        reasons = (
            (cell.moving, f"{day} is about the releases of that day"),
            (run.unresolved is not None, f"{day} is that no environment could be made"),
            (not run.complete, f"{day} is incomplete"),
            (not self.options.asks(about.subjects) or about.selection != selection, f"{day} is to another request"),
            *self._out_of_date(about.subjects, answers, day),
        )
        return next((why for holds, why in reasons if holds), "")

    def _out_of_date(self, subjects: Sequence[str], answers: Counts, day: str) -> Iterator[tuple[bool, str]]:
        current, total = self.suite.current(answers), sum(answers.values())
        lacking = self.options.lacks(subjects)
        there = {category for _, category, _ in answers}
        wanted = set(self.options.categories) or self.suite.categories - set(optin.CATEGORIES)
        new = sorted(wanted - there) if not self.options.keyword else []
        yield not current, f"{day} is of another version of the suite"
        yield (
            current < total,
            f"{day} has {total - current} of {total} answers about sources that changed since",
        )
        yield bool(lacking), f"{day} does not tell about {' and '.join(lacking)}"
        yield bool(new), f"{day} lacks the category {', '.join(new)}"


def _read(path: Path) -> CellRun | None:
    try:
        return files.read(path)
    except UserError:
        return None
