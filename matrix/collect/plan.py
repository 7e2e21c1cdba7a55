"""For each selected cell whether it runs, and why not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell, VersionKey, version_key
from matrix.collect.answers import Answer, Answers


@dataclass(frozen=True)
class Planned:
    """A cell of the plan.

    Attributes:
        cell: the cell.
        why_not: why it cannot be made, or None.
        answer: the best answer that there is, or None.
    """

    cell: Cell
    why_not: str | None
    answer: Answer | None = None

    @property
    def state(self) -> str:
        """What happens to the cell.

        | state       | the cell                                                                    |
        |-------------|-----------------------------------------------------------------------------|
        | `not`       | cannot be made                                                              |
        | `recorded`  | was answered on this machine, by the present suite                          |
        | `published` | has a published answer of the present suite                                 |
        | `run`       | has no answer, or one that no longer holds; `why` tells which               |
        """
        if self.why_not:
            return "not"
        return self.answer.place if self.answer and self.answer.holds else "run"

    @property
    def why(self) -> str:
        """Why the cell cannot be made, or why it is asked again; empty where an answer holds."""
        if self.why_not:
            return self.why_not
        return self.answer.why_again if self.answer else "never asked"

    def to_json(self) -> dict[str, Any]:
        """The row as `--format json` prints it."""
        return {
            **self.cell.to_json(),
            "state": self.state,
            "why": self.why,
            "current": self.answer.current if self.answer else 0,
            "answers": self.answer.total if self.answer else 0,
        }

    @property
    def changed(self) -> float:
        """The share of its answers that no longer hold, 0 to 1; 1 where it has none."""
        return 1 - self.answer.current / self.answer.total if self.answer and self.answer.total else 1.0

    @property
    def current(self) -> str:
        """How many of its answers are current, as `1340 of 2680`; empty where there is none."""
        return f"{self.answer.current} of {self.answer.total}" if self.answer and self.answer.total else ""


def build(cells: Sequence[Cell], axes: Axes, answers: Answers) -> list[Planned]:
    """The plan for some cells."""
    return [Planned(cell, axes.why_not(cell), answers.of(cell)) for cell in cells]


def due(plan: Sequence[Planned], count: int) -> list[Planned]:
    """The cells to measure next, in the order of the plan.

    Those of which most has changed come first: a cell that was never asked counts as changed altogether. Among equals
    the one that was asked longest ago, and then the newest releases, which most people have.

    Args:
        plan: the cells to choose from; those that need no run are left out.
        count: how many, at most.
    """
    waiting = [row for row in plan if row.state == "run"]
    newest = sorted(
        waiting, key=lambda row: tuple(map(version_key, (row.cell.torch, row.cell.transformers))), reverse=True
    )
    chosen = sorted(newest, key=lambda row: (-row.changed, row.answer.asked if row.answer else ""))[:count]
    return [row for row in waiting if row in chosen]


def _releases(row: Planned) -> tuple[VersionKey, VersionKey]:
    return version_key(row.cell.torch), version_key(row.cell.transformers)


def as_json(plan: Sequence[Planned]) -> str:
    """The plan for programs."""
    return json.dumps([row.to_json() for row in plan], indent=1)


def as_table(plan: Sequence[Planned]) -> str:
    """The plan for people."""
    width = max(len(row.cell.id) for row in plan)
    wide = max(len(row.current) for row in plan)
    lines = [
        "  ".join([f"{row.cell.id:{width}}", f"{row.state:9}", *([row.current.rjust(wide)] if wide else []), row.why])
        for row in plan
    ]
    counts = Counter(row.state for row in plan)
    by_state = ", ".join(f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state])
    answers = [row.answer for row in plan if row.answer]
    current, total = sum(each.current for each in answers), sum(each.total for each in answers)
    told = [f"{current} of {total} answers are current"] if total else []
    return "\n".join([*(line.rstrip() for line in lines), "", f"{len(plan)} cells: {by_state}", *told])


_WORDS = {"run": "to run", "recorded": "recorded", "published": "published", "not": "cannot be made"}
