"""`python -m matrix plan`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from matrix.cells import axes as axes_module
from matrix.cells.cell import DEVICES, Cell
from matrix.cells.options import CellOptions
from matrix.cells.selection import add_next_option, add_selection_options, select
from matrix.collect import jobs, pipelines
from matrix.collect.answers import Answers
from matrix.collect.digest import suite
from matrix.collect.plan import as_json, as_table, build, due
from matrix.errors import EmptySelectionError, ExitCode, UserError
from matrix.paths import Paths

NAME = "plan"
HELP = "show each cell, whether it runs, and why or why not"
PIPELINES = ("github", "buildkite")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_selection_options(parser)
    add_next_option(parser)
    parser.add_argument("--format", choices=("table", "json", *PIPELINES), default="table")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="github, buildkite: jobs at most (as many as torch minors)"
    )
    parser.add_argument("--python", metavar="X.Y", help="the cells' interpreter")
    parser.add_argument("--device", choices=DEVICES, help="the cells' device")


def run(found: argparse.Namespace) -> int:
    """Print the plan."""
    axes, paths = axes_module.load(), Paths.here()
    cells = select(found, axes)
    if found.format in PIPELINES and not found.next:
        print(_pipeline(found, [cell for cell in cells if not axes.why_not(cell)], paths))
        return ExitCode.OK
    planned = build(cells, axes, Answers(paths, CellOptions(), suite(paths.root)))
    if found.next:
        planned = due(planned, found.next)
        if not planned:
            raise EmptySelectionError(
                "nothing is due: each cell has an answer that holds, or cannot be made", "python -m matrix plan"
            )
    if found.format in PIPELINES:
        print(_pipeline(found, [row.cell for row in planned], paths))
    else:
        print(as_json(planned) if found.format == "json" else as_table(planned))
    return ExitCode.OK


def _pipeline(found: argparse.Namespace, cells: Sequence[Cell], paths: Paths) -> str:
    if found.jobs is not None and found.jobs < 1:
        raise UserError(f"--jobs {found.jobs}: give 1 or more", "python -m matrix plan --format github --jobs 12")
    count = found.jobs or len({cell.torch for cell in cells})
    made = jobs.split(jobs.expected(cells, paths.published), count)
    if found.format == "github":
        return pipelines.github(made)
    names = ("tier", "torch", "transformers", "python", "device")
    return pipelines.buildkite(made, {name: getattr(found, name) for name in names if getattr(found, name)})
