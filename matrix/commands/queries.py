"""The commands of `python -m matrix` that need more than one module: checks and bisect."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from dataclasses import replace

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.cells.ranges import expand
from matrix.collect import fanout, plan
from matrix.collect.digest import suite_digest
from matrix.collect.environment import python_of
from matrix.errors import EmptySelectionError, ExitCode, UserError
from matrix.judge import bisect
from matrix.paths import Paths
from matrix.records import files


def checks(found: argparse.Namespace, axes: Axes, paths: Paths) -> int:
    """List the checks: asked of an environment that exists, else read from the newest record."""
    cells = plan.select(found, axes)
    for cell in reversed(cells):
        python = python_of(cell, paths)
        if python.exists():
            command = [str(python), "-m", "kvconform", "check", "--list"]
            command += [f"--category={name}" for name in found.category]
            return subprocess.run(command, check=False, cwd=paths.root).returncode
    for cell in reversed(cells):
        path = paths.records / f"{cell.id}.jsonl"
        if path.exists() and (run := files.read(path)).records:
            wanted = {record.id for record in run.records if not found.category or record.category in found.category}
            print("\n".join(sorted(wanted)))
            return ExitCode.OK
    raise EmptySelectionError(
        "no environment and no record to read the checks from", "python -m matrix run --tier smoke"
    )


def run_bisect(found: argparse.Namespace, axes: Axes, paths: Paths) -> int:
    """Print where a check flips along one axis, running the cells that have no record of this suite yet."""
    category, slash, _ = found.check.partition("/")
    if not slash:
        raise UserError(f"{found.check!r} is no check: ids look like round-trip/dynamic", "python -m matrix checks")
    cells = _line(found, axes)
    options = CellOptions(device=found.device, python=axes.python)
    digest = suite_digest(paths.root)
    # A cell without a record is asked one category only; that answer stays apart from the published records.
    narrow = replace(options, categories=(category,), subjects=(found.subject,))

    def ask(cell: Cell) -> files.Record | None:
        for request, folder in ((options, paths.records), (narrow, paths.partial)):
            path = folder / f"{cell.id}.jsonl"
            if plan.is_recorded(cell, paths, request, digest):
                return bisect.from_record(cell, path, found.subject, found.check)
        print(f"  asking {cell.id}", flush=True)
        _run(cell, narrow, paths)
        path = paths.partial / f"{cell.id}.jsonl"
        return bisect.from_record(cell, path, found.subject, found.check) if path.exists() else None

    print(bisect.bisect(cells, ask))
    return ExitCode.OK


def _line(found: argparse.Namespace, axes: Axes) -> list[Cell]:
    """The cells along the axis that is a range; the other axis stands still, at its newest release unless told."""
    ranges = {axis: _values(axis, getattr(found, axis), axes) for axis in ("torch", "transformers")}
    long = [axis for axis, values in ranges.items() if len(values) > 1]
    if len(long) != 1:
        example = "python -m matrix bisect round-trip/dynamic --transformers 4.49..5.23"
        raise UserError("give one range: --torch A..B or --transformers A..B", example)
    device = found.device if found.device != "auto" else "cpu"
    cells = [Cell(t, f, axes.python, device) for t in ranges["torch"] for f in ranges["transformers"]]
    return [cell for cell in cells if not axes.why_not(cell)]


def _values(axis: str, text: str | None, axes: Axes) -> Sequence[str]:
    return expand(axis, text, axes.known(axis)) if text else axes.known(axis)[-1:]


def _run(cell: Cell, options: CellOptions, paths: Paths) -> None:
    done = subprocess.run(
        list(fanout.nox_command(options, paths)(cell)), capture_output=True, text=True, check=False, cwd=paths.root
    )
    if done.returncode in {ExitCode.USAGE, ExitCode.EMPTY, ExitCode.INTERRUPTED}:
        told = "\n".join((done.stderr or done.stdout).splitlines()[-5:])
        raise UserError(f"{cell.id} could not be asked:\n{told}", "python -m matrix checks", done.returncode)
