"""For each selected cell whether it runs, and why not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.collect.answers import Answer, Answers
from matrix.errors import EmptySelectionError, UserError

JOBS_LIMIT = 256
"""GitHub refuses a matrix with more jobs."""


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
    def current(self) -> str:
        """How many of its answers are current, as `1340 of 2680`; empty where there is none."""
        return f"{self.answer.current} of {self.answer.total}" if self.answer and self.answer.total else ""


def build(cells: Sequence[Cell], axes: Axes, answers: Answers) -> list[Planned]:
    """The plan for some cells."""
    return [Planned(cell, axes.why_not(cell), answers.of(cell)) for cell in cells]


def show(plan: Sequence[Planned], form: str) -> str:
    """The plan as text: "table", "json" or "github" (the matrix of a workflow, one job a torch).

    Raises:
        EmptySelectionError: GitHub's matrix would be empty, which Actions takes for a success.
    """
    if form == "json":
        return json.dumps([row.to_json() for row in plan], indent=1)
    return _github(plan) if form == "github" else _table(plan)


def _table(plan: Sequence[Planned]) -> str:
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


def _github(plan: Sequence[Planned]) -> str:
    counts = Counter(row.cell.torch for row in plan if not row.why_not)
    if not counts:
        raise EmptySelectionError("no cell of the selection can run", "python -m matrix plan")
    if len(counts) > JOBS_LIMIT:
        raise UserError(
            f"{len(counts)} jobs are more than GitHub takes ({JOBS_LIMIT})", "python -m matrix plan --tier core"
        )
    return json.dumps({"include": [{"torch": torch, "cells": count} for torch, count in counts.items()]})


_WORDS = {"run": "to run", "recorded": "recorded", "published": "published", "not": "cannot be made"}
