"""`python -m matrix run`: many cells, resumed, bounded, judged."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from matrix.cells import axes as axes_module
from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions, add_cell_options, device_here, from_namespace
from matrix.cells.selection import add_selection_options, select
from matrix.collect import fanout, locks, progress
from matrix.collect.answers import Answer, Answers
from matrix.collect.digest import suite
from matrix.collect.disk import Keeper, parse_budget
from matrix.collect.nox_support import worst
from matrix.collect.outcome import Outcome
from matrix.collect.plan import build
from matrix.commands.cell import judged
from matrix.errors import ExitCode, UserError
from matrix.judge.baseline import load_baseline
from matrix.paths import Paths

NAME = "run"
HELP = "run cells, skipping what is answered (without options: the smoke tier)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_selection_options(parser)
    add_cell_options(parser)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once (1)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes in a cell (the cores divided by the jobs)")
    parser.add_argument("--disk-budget", default="25", metavar="GB", help="for environments and uv's cache (25)")


def run(found: argparse.Namespace) -> int:
    """Run what the options select."""
    return run_cells(found, axes_module.load(), Paths.here())


def run_cells(found: argparse.Namespace, axes: Axes, paths: Paths, *, command: fanout.CellCommand | None = None) -> int:
    """Run what the parsed options select and return the worst code of its cells.

    Args:
        found: the parsed options.
        axes: what there is.
        paths: where things lie.
        command: runs a cell; the nox session unless a test brings its own.

    Raises:
        UserError: the options are wrong, another run is going on, or the disk is full.
    """
    options = _options(found)
    found.device = device_here(options.device)
    cells = select(found, axes, tier="smoke")
    planned = build(cells, axes, Answers(paths, options, suite(paths.root)))
    again = options.rerun or options.fresh
    todo = [row.cell for row in planned if row.state == "run" or (again and not row.why_not)]
    skipped = [row.answer for row in planned if row.answer and row.cell not in todo and not row.why_not]
    impossible = [row for row in planned if row.why_not]
    if len(impossible) == len(planned):
        raise UserError(
            f"none of the {len(planned)} cells can be made: {planned[0].why_not}",
            "python -m matrix plan",
            ExitCode.UNRESOLVED,
        )
    print(f"{len(todo)} cells to run, {len(skipped)} answered already, {len(impossible)} cannot be made", flush=True)
    with locks.hold(paths.locks / "run.lock", "a matrix run"):
        outcomes = _fan_out(todo, command or fanout.session_command(options, paths), paths, found)
    return _conclude(todo, outcomes, [_judged(answer, paths) for answer in skipped])


def _options(found: argparse.Namespace) -> CellOptions:
    if found.jobs < 1:
        raise UserError(f"--jobs {found.jobs}: give 1 or more", "python -m matrix run --jobs 1")
    workers = found.workers or max(1, (os.cpu_count() or 1) // found.jobs)
    return replace(from_namespace(found), jobs=workers)


def _fan_out(
    cells: Sequence[Cell], command: fanout.CellCommand, paths: Paths, found: argparse.Namespace
) -> list[Outcome]:
    if not cells:
        return []
    fanout.expect_disk(paths.home)
    earlier = {cell.id: Outcome.load(paths, cell) for cell in cells}
    before = {name: sum(outcome.seconds.values()) for name, outcome in earlier.items() if outcome and outcome.seconds}
    clock = progress.Clock(list(cells), before, found.jobs)
    keeper = Keeper(paths, parse_budget(found.disk_budget))
    with progress.display(clock) as display:
        return fanout.Fanout(paths, command, found.jobs, display, keeper).run(cells)


def _judged(answer: Answer, paths: Paths) -> Outcome:
    """The outcome of a cell that was not run again: a regression that it holds counts in this run too."""
    verdict = judged(answer.run(), load_baseline(paths.baseline))
    return Outcome(answer.cell, verdict.exit_code, counts=verdict.counts)


def _conclude(todo: Sequence[Cell], ran: Sequence[Outcome], skipped: Sequence[Outcome]) -> int:
    outcomes = [*ran, *skipped]
    tally = Counter(progress.WORDS[ExitCode(outcome.exit_code)] for outcome in outcomes)
    never = len(todo) - len(ran)
    parts = [f"{count} {word}" for word, count in tally.items()] + ([f"{never} not started"] if never else [])
    print(f"{len(outcomes) + never} cells: {', '.join(parts)}")
    for outcome in outcomes:
        if outcome.exit_code == ExitCode.REGRESSION:
            cell = Cell.parse(outcome.cell)
            print(f'  {cell.id}: python -m nox -s "{cell.session}"')
    codes = [outcome.exit_code for outcome in outcomes] + ([int(ExitCode.INTERRUPTED)] if never else [])
    if not never:
        print("next: python -m matrix publish")
    return worst(codes)
