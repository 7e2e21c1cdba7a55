"""Which cells a command means, and for each whether it runs and why not."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from matrix.cells import selectors
from matrix.cells.axes import Axes
from matrix.cells.cell import DEVICES, Cell
from matrix.cells.options import CellOptions
from matrix.cells.ranges import expand
from matrix.errors import EmptySelectionError, UserError
from matrix.paths import Paths
from matrix.records import files

JOBS_LIMIT = 256
"""GitHub refuses a matrix with more jobs."""


@dataclass(frozen=True)
class Planned:
    """A cell of the plan.

    `why_not` tells why it cannot be made; `recorded` that its record is complete and of the present suite.
    """

    cell: Cell
    why_not: str | None
    recorded: bool = False

    @property
    def state(self) -> str:
        """One of "run", "recorded", "not"."""
        if self.why_not:
            return "not"
        return "recorded" if self.recorded else "run"

    def to_json(self) -> dict[str, Any]:
        """The row as `--format json` prints it."""
        return {**self.cell.to_json(), "state": self.state, "why": self.why_not or ""}


def add_selection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select cells; `plan`, `run` and `checks` share them."""
    parser.add_argument("--tier", metavar="NAME", help="smoke, core, full or upstream")
    parser.add_argument(
        "--select", action="append", default=[], metavar="GLOB", help="such as 'torch2.{5,6}-*'; may repeat"
    )
    parser.add_argument("--torch", metavar="RANGE", help="such as 2.9, 2.5..2.8 or 2.5,2.15")
    parser.add_argument("--transformers", metavar="RANGE", help="such as 4.53 or 4.49..5.23")


def select(found: argparse.Namespace, axes: Axes, *, tier: str | None = None) -> list[Cell]:
    """The cells that parsed options select.

    Args:
        found: the options of `add_selection_options`, and perhaps `python` and `device`.
        axes: what there is.
        tier: the tier where the options name neither a tier nor anything else; None is the default axes.

    Raises:
        UserError: a version or tier is unknown.
        EmptySelectionError: nothing is selected.
    """
    narrowed = found.select or found.torch or found.transformers
    name = found.tier or (None if narrowed else tier)
    cells = axes.tier(name) if name else _everything(found, axes)
    cells = [replace(cell, **_elsewhere(found)) for cell in cells]
    chosen: list[selectors.Selector] = []
    if found.select:
        globs = [selectors.glob(pattern) for pattern in found.select]
        chosen.append(lambda cell: any(selector(cell) for selector in globs))
    chosen += [selectors.on_axis(axis, text, axes) for axis, text in _ranges(found)]
    return selectors.select(cells, chosen, asked=_asked(found))


def build(cells: Sequence[Cell], axes: Axes, paths: Paths, options: CellOptions, digest: str) -> list[Planned]:
    """The plan for some cells."""
    return [Planned(cell, axes.why_not(cell), is_recorded(cell, paths, options, digest)) for cell in cells]


def is_recorded(cell: Cell, paths: Paths, options: CellOptions, digest: str) -> bool:
    """Whether a cell's record answers the request: complete, of this suite, and nothing less or else was asked."""
    folder = options.records or (paths.partial if options.partial else paths.records)
    path = folder / f"{cell.id}.jsonl"
    if cell.moving or not path.exists():
        return False
    try:
        run = files.read(path)
    except UserError:
        return False
    found = run.environment
    selection = (found.selection.keyword, tuple(found.selection.categories))
    same = options.asks(found.subjects) and selection == (options.keyword, options.categories)
    return run.complete and run.unresolved is None and found.digest == digest and same


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
    lines = [f"{row.cell.id:{width}}  {row.state:8}  {row.why_not or ''}".rstrip() for row in plan]
    counts = Counter(row.state for row in plan)
    told = ", ".join(f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state])
    return "\n".join([*lines, "", f"{len(plan)} cells: {told}"])


def _github(plan: Sequence[Planned]) -> str:
    counts = Counter(row.cell.torch for row in plan if not row.why_not)
    if not counts:
        raise EmptySelectionError("no cell of the selection can run", "python -m matrix plan")
    if len(counts) > JOBS_LIMIT:
        raise UserError(
            f"{len(counts)} jobs are more than GitHub takes ({JOBS_LIMIT})", "python -m matrix plan --tier core"
        )
    return json.dumps({"include": [{"torch": torch, "cells": count} for torch, count in counts.items()]})


def _everything(found: argparse.Namespace, axes: Axes) -> list[Cell]:
    """The default axes; a range or a pinned version may name releases that are off them."""
    torches = expand("torch", found.torch, axes.known("torch")) if found.torch else axes.defaults["torch"]
    transformers = (
        expand("transformers", found.transformers, axes.known("transformers"))
        if found.transformers
        else axes.defaults["transformers"]
    )
    return [Cell(t, f, axes.python) for t in torches for f in transformers]


def _elsewhere(found: argparse.Namespace) -> dict[str, str]:
    moved = {}
    if getattr(found, "python", None):
        moved["python"] = found.python
    if getattr(found, "device", None) in DEVICES:
        moved["device"] = found.device
    return moved


def _ranges(found: argparse.Namespace) -> list[tuple[str, str]]:
    return [(axis, getattr(found, axis)) for axis in ("torch", "transformers") if getattr(found, axis)]


def _asked(found: argparse.Namespace) -> str:
    parts = [f"--tier {found.tier}"] if found.tier else []
    parts += [f"--{axis} {text}" for axis, text in _ranges(found)]
    return " ".join([*parts, *(f"--select {pattern}" for pattern in found.select)])


_WORDS = {"run": "to run", "recorded": "recorded", "not": "cannot be made"}
