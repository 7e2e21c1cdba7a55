"""`python -m matrix run`: many cells, resumed, bounded, judged."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from matrix.cells import axes as axes_module
from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions, add_cell_options, device_here, from_namespace
from matrix.cells.selection import add_next_option, add_selection_options, select
from matrix.collect import fanout, locks, progress
from matrix.collect.answers import Answer, Answers
from matrix.collect.digest import suite
from matrix.collect.disk import Keeper, parse_budget
from matrix.collect.machines import connect
from matrix.collect.machines.driver import Asked, Machines
from matrix.collect.machines.worker import run_group
from matrix.collect.nox_support import worst
from matrix.collect.outcome import Outcome
from matrix.collect.plan import build, due
from matrix.commands.cell import judged
from matrix.errors import ExitCode, UserError
from matrix.judge.baseline import load_baseline
from matrix.paths import Paths
from matrix.records import files

NAME = "run"
HELP = "run cells, skipping what is answered (without options: the smoke tier)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_selection_options(parser)
    add_next_option(parser)
    add_cell_options(parser)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once (1)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes in a cell (the cores divided by the jobs)")
    parser.add_argument("--disk-budget", default="25", metavar="GB", help="for environments and uv's cache (25)")
    machines = parser.add_argument_group("more than one machine", "through Dask; docs/matrix.md, Many machines")
    machines.add_argument("--on", metavar="dask://HOST:PORT", help="on the machines of a scheduler that runs")
    machines.add_argument("--hosts", metavar="A,B,...", help="on these machines, reached by SSH")
    machines.add_argument("--host-root", type=Path, metavar="DIR", help="the checkout on each host (as here)")
    machines.add_argument("--host-python", default=sys.executable, metavar="PYTHON", help="the Python there (as here)")
    machines.add_argument(
        "--scheduler-host",
        default=connect.LOOPBACK,
        metavar="ADDRESS",
        help=f"where the scheduler of --hosts listens ({connect.LOOPBACK}); whoever reaches it can run anything",
    )


def run(found: argparse.Namespace) -> int:
    """Run what the options select."""
    return run_cells(found, axes_module.load(), Paths.here())


def run_cells(
    found: argparse.Namespace,
    axes: Axes,
    paths: Paths,
    *,
    command: fanout.CellCommand | None = None,
    task: Callable[[str, str], None] = run_group,
) -> int:
    """Run what the parsed options select and return the worst code of its cells.

    Args:
        found: the parsed options.
        axes: what there is.
        paths: where things lie.
        command: runs a cell; the nox session unless a test brings its own.
        task: the same for a group of cells on another machine.

    Raises:
        UserError: the options are wrong, another run is going on, or the disk is full.
    """
    options = _options(found)
    found.device = device_here(options.device)
    cells = select(found, axes, tier="smoke")
    planned = build(cells, axes, Answers(paths, options, suite(paths.root)))
    if found.next:
        planned = due(planned, found.next) or planned
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
        if not todo:
            outcomes = []
        elif found.on or found.hosts:
            outcomes = _elsewhere(todo, options, paths, found, task)
        else:
            outcomes = _fan_out(todo, command or fanout.session_command(options, paths), paths, found)
    return _conclude(todo, outcomes, [_judged(answer, paths) for answer in skipped])


def _options(found: argparse.Namespace) -> CellOptions:
    if found.jobs < 1:
        raise UserError(f"--jobs {found.jobs}: give 1 or more", "python -m matrix run --jobs 1")
    if found.on and found.hosts:
        raise UserError("--on names a scheduler that runs, --hosts begins one: give one of them", "--on or --hosts")
    workers = found.workers or max(1, (os.cpu_count() or 1) // found.jobs)
    return replace(from_namespace(found), jobs=workers)


def _fan_out(
    cells: Sequence[Cell], command: fanout.CellCommand, paths: Paths, found: argparse.Namespace
) -> list[Outcome]:
    fanout.expect_disk(paths.home)
    keeper = Keeper(paths, parse_budget(found.disk_budget))
    with _shown(cells, paths, found) as display:
        run = fanout.Fanout(paths, command, found.jobs, display, keeper)
        with fanout.signals(run.stop):
            return run.run(cells)


def _elsewhere(
    cells: Sequence[Cell],
    options: CellOptions,
    paths: Paths,
    found: argparse.Namespace,
    task: Callable[[str, str], None],
) -> list[Outcome]:
    """On other machines, each with its own folder, number of processes and disk."""
    argv = replace(options, jobs=None, records=None).to_argv()
    asked = Asked(argv, found.jobs, found.workers, parse_budget(found.disk_budget))
    names = [name for name in (found.hosts or "").split(",") if name]
    hosts = connect.Hosts(names, found.host_root or paths.root, found.host_python, found.scheduler_host)
    baseline = load_baseline(paths.baseline)

    def judge(record: Path, outcome: Outcome) -> None:
        answered = files.read(record)
        verdict = judged(answered, baseline)
        outcome.counts = verdict.counts
        if answered.complete and answered.unresolved is None:
            outcome.exit_code = verdict.exit_code

    with (
        connect.client(found.on, hosts if found.hosts else None, paths, device=found.device) as client,
        _shown(cells, paths, found) as display,
    ):
        resources = connect.needs(client, found.device)
        run = Machines(client, paths, options.folder(paths), asked, judge, display, resources, task)
        with fanout.signals(run.stop):
            return run.run(cells)


def _shown(cells: Sequence[Cell], paths: Paths, found: argparse.Namespace) -> progress.Display:
    earlier = {cell.id: Outcome.load(paths, cell) for cell in cells}
    before = {name: sum(outcome.seconds.values()) for name, outcome in earlier.items() if outcome and outcome.seconds}
    return progress.display(progress.Clock(list(cells), before, found.jobs))


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
            print(f"  {cell.id}: {cell.command}")
    codes = [outcome.exit_code for outcome in outcomes] + ([int(ExitCode.INTERRUPTED)] if never else [])
    if not never:
        print("next: python -m matrix publish")
    return worst(codes)
