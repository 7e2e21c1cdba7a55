"""The answers that there are already, on this machine and published, and whether they still hold."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
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
    """

    cell: str
    place: Where
    path: Path
    why_again: str = ""

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
        digest: the digest of the present suite.
    """

    paths: Paths
    options: CellOptions
    digest: str

    def of(self, cell: Cell) -> Answer | None:
        """The answer of this machine if it holds, else a published one that holds, else the newest, or None."""
        found = list(self._all(cell))
        holding = next((answer for answer in found if answer.holds), None)
        return holding or (found[0] if found else None)

    def _all(self, cell: Cell) -> Iterator[Answer]:
        path = self.options.folder(self.paths) / f"{cell.id}.jsonl"
        if path.exists():
            yield Answer(cell.id, "recorded", path, self._why_again(cell, _read(path)))
        for run in reversed(self._published.get(cell.id, [])):
            yield Answer(cell.id, "published", self.paths.published, self._why_again(cell, run))

    @functools.cached_property
    def _published(self) -> dict[str, list[CellRun]]:
        if self.options.partial or self.options.records or not self.paths.published.exists():
            return {}
        found: dict[str, list[CellRun]] = {}
        for run in parquet.read_headers(self.paths.published):
            found.setdefault(run.cell, []).append(run)
        return found

    def _why_again(self, cell: Cell, run: CellRun | None) -> str:
        if run is None:
            return "its record cannot be read"
        about = run.environment
        day = f"the answer of {about.started[:10]}" if about.started else "the answer"
        selection = Selection(self.options.keyword, self.options.categories)
        reasons = (
            (cell.moving, f"{day} is about the releases of that day"),
            (run.unresolved is not None, f"{day} is that no environment could be made"),
            (not run.complete, f"{day} is incomplete"),
            (about.digest != self.digest, f"{day} is of another version of the suite"),
            (not self.options.asks(about.subjects) or about.selection != selection, f"{day} is to another request"),
        )
        return next((why for holds, why in reasons if holds), "")


def _read(path: Path) -> CellRun | None:
    try:
        return files.read(path)
    except UserError:
        return None
