"""`python -m matrix bisect`: where a check changes its answer; cells without an answer are run."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from dataclasses import replace

from matrix.cells import axes as axes_module
from matrix.cells.axes import Axes
from matrix.cells.cell import DEVICES, Cell
from matrix.cells.options import CellOptions
from matrix.cells.ranges import expand
from matrix.collect.answers import Answer, Answers
from matrix.collect.digest import suite
from matrix.collect.fanout import session_command
from matrix.errors import ExitCode, UserError
from matrix.judge.bisect import bisect, of_run
from matrix.paths import Paths
from matrix.records.lines import Record

NAME = "bisect"
HELP = "find the first release that flips a check"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("check", help="a check id, such as round-trip/dynamic")
    parser.add_argument("--torch", metavar="A..B", help="a range to search, or the one torch to stand on (newest)")
    parser.add_argument("--transformers", metavar="A..B", help="a range to search, or the one to stand on (newest)")
    parser.add_argument("--subject", default="kvconform", help="kvconform, native, exporter or module:attribute")
    parser.add_argument("--device", choices=("auto", *DEVICES), default="auto", help="where the check runs")


def run(found: argparse.Namespace) -> int:
    """Print the flips."""
    category, slash, _ = found.check.partition("/")
    if not slash:
        raise UserError(f"{found.check!r} is no check: ids look like round-trip/dynamic", "python -m matrix checks")
    axes, paths = axes_module.load(), Paths.here()
    cells = _line(found, axes)
    options = CellOptions(device=found.device, python=axes.python)
    # A cell without a record is asked one category only; that answer stays apart from those to everything.
    narrow = replace(options, categories=(category,), subjects=(found.subject,))
    present = suite(paths.root)
    known = [Answers(paths, request, present) for request in (options, narrow)]

    def ask(cell: Cell) -> Record | None:
        answer = _holding(known, cell)
        if answer is None:
            print(f"  asking {cell.id}", flush=True)
            _run(cell, narrow, paths)
            answer = known[-1].of(cell)
        return of_run(cell, answer.run(), found.subject, found.check) if answer else None

    print("\n".join(str(flip) for flip in bisect(cells, ask)))
    return ExitCode.OK


def _holding(known: Sequence[Answers], cell: Cell) -> Answer | None:
    answers = (each.of(cell) for each in known)
    return next((answer for answer in answers if answer and answer.holds), None)


def _line(found: argparse.Namespace, axes: Axes) -> list[Cell]:
    """The cells of the range; the other axis has one release, the newest unless an option names another."""
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
    command = list(session_command(options, paths)(cell))
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=paths.root)
    if done.returncode in {ExitCode.USAGE, ExitCode.EMPTY, ExitCode.INTERRUPTED}:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-5:])
        raise UserError(f"{cell.id} could not be asked:\n{last}", "python -m matrix checks", done.returncode)
