"""`python -m matrix run`: many cells, resumed, bounded, judged."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions, device_here, from_namespace
from matrix.collect import fanout, locks, plan, progress
from matrix.collect.digest import suite_digest
from matrix.collect.disk import Keeper, parse_budget
from matrix.collect.nox_support import worst
from matrix.collect.session import Outcome
from matrix.commands import verdict
from matrix.errors import ExitCode, UserError
from matrix.paths import Paths


def run(found: argparse.Namespace, axes: Axes, paths: Paths, *, command: fanout.CellCommand | None = None) -> int:
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
    cells = plan.select(found, axes, tier="smoke")
    planned = plan.build(cells, axes, paths, options, suite_digest(paths.root))
    todo = [row.cell for row in planned if not row.why_not and (found.rerun or options.fresh or not row.recorded)]
    skipped = [row.cell for row in planned if row.recorded and row.cell not in todo]
    impossible = [row for row in planned if row.why_not]
    if len(impossible) == len(planned):
        raise UserError(
            f"none of the {len(planned)} cells can be made: {planned[0].why_not}",
            "python -m matrix plan",
            ExitCode.UNRESOLVED,
        )
    print(f"{len(todo)} cells to run, {len(skipped)} recorded, {len(impossible)} cannot be made", flush=True)
    with locks.hold(paths.locks / "run.lock", "a matrix run"):
        outcomes = _fan_out(todo, command or fanout.nox_command(options, paths), paths, found)
    return _conclude(todo, outcomes, [_judge(cell, options, paths) for cell in skipped])


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


def _judge(cell: Cell, options: CellOptions, paths: Paths) -> Outcome:
    """A cell that was not run again still counts: a regression does not heal by being skipped."""
    folder = options.records or (paths.partial if options.partial else paths.records)
    judged = verdict.judge_record(folder / f"{cell.id}.jsonl", paths.baseline)
    return Outcome(cell.id, judged.exit_code, counts=judged.counts)


def _conclude(todo: Sequence[Cell], ran: Sequence[Outcome], skipped: Sequence[Outcome]) -> int:
    outcomes = [*ran, *skipped]
    tally = Counter(progress.WORDS[ExitCode(outcome.exit_code)] for outcome in outcomes)
    never = len(todo) - len(ran)
    told = [f"{count} {word}" for word, count in tally.items()] + ([f"{never} not started"] if never else [])
    print(f"{len(outcomes) + never} cells: {', '.join(told)}")
    for outcome in outcomes:
        if outcome.exit_code == ExitCode.REGRESSION:
            cell = Cell.parse(outcome.cell)
            print(f'  {cell.id}: python -m nox -s "{cell.session}"')
    codes = [outcome.exit_code for outcome in outcomes] + ([int(ExitCode.INTERRUPTED)] if never else [])
    if not never:
        print("next: python -m matrix report")
    return worst(codes)
