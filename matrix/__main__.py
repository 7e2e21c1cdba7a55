"""`python -m matrix`: plan, run, report, compare, bisect, checks, portability."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from matrix.cells import axes as axes_module
from matrix.cells.cell import DEVICES
from matrix.cells.options import add_cell_options
from matrix.commands import publishing
from matrix.errors import ExitCode, UserError
from matrix.paths import Paths
from matrix.portability import runs

Command = Callable[[argparse.Namespace], int]

EPILOG = """\
exit codes: 0 no regression; 1 a regression, a stale baseline row or an incomplete record; 2 usage; 3 nothing selected;
4 an environment could not be made; 130 interrupted. --traceback shows where an error came from."""


_INSTALL = "python -m pip install -r requirements.txt"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"{self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its documented exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    shows_traceback = "--traceback" in arguments
    try:
        found = parser().parse_args([text for text in arguments if text != "--traceback"])
        command: Command = found.command
        return int(command(found))
    except UserError as error:
        if shows_traceback:
            traceback.print_exc()
        print(error.render(), file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if shows_traceback or (error.name or "").startswith("matrix"):
            raise
        print(UserError(f"{error.name} is not installed here", _INSTALL).render(), file=sys.stderr)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`| head`); Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from matrix.collect.plan import add_selection_options

    top = _Parser(prog="python -m matrix", description="Plan, run and judge cells.", epilog=EPILOG)
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    plan = commands.add_parser("plan", help="show each cell, whether it runs, and why not")
    add_selection_options(plan)
    plan.add_argument("--format", choices=("table", "json", "github"), default="table")
    plan.add_argument("--python", metavar="X.Y", help="the cells' interpreter")
    plan.add_argument("--device", choices=DEVICES, help="the cells' device")
    plan.set_defaults(command=_plan)

    run = commands.add_parser("run", help="run cells, skipping what is recorded (without options: the smoke tier)")
    add_selection_options(run)
    add_cell_options(run)
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once (1)")
    run.add_argument("--workers", type=int, metavar="N", help="processes in a cell (the cores divided by the jobs)")
    run.add_argument("--rerun", action="store_true", help="run also what is recorded")
    run.add_argument("--disk-budget", default="25", metavar="GB", help="for environments and uv's cache (25)")
    run.set_defaults(command=_run)

    checks = commands.add_parser("checks", help="list the checks")
    add_selection_options(checks)
    checks.add_argument("--category", action="append", default=[], help="only this category; may repeat")
    checks.set_defaults(command=_checks)

    bisect = commands.add_parser("bisect", help="find the first release that flips a check")
    bisect.add_argument("check", help="a check id, such as round-trip/dynamic")
    bisect.add_argument("--torch", metavar="A..B", help="a range to search, or the one torch to stand on (newest)")
    bisect.add_argument("--transformers", metavar="A..B", help="a range to search, or the one to stand on (newest)")
    bisect.add_argument("--subject", default="kvconform", help="kvconform, native, exporter or module:attribute")
    bisect.add_argument("--device", choices=("auto", *DEVICES), default="auto", help="where the check runs")
    bisect.set_defaults(command=_bisect)

    runs.add_parser(commands)
    publishing.add_parsers(commands)
    return top


def _plan(found: argparse.Namespace) -> int:
    from matrix.cells.options import CellOptions
    from matrix.collect import plan
    from matrix.collect.digest import suite_digest

    axes, paths = axes_module.load(), Paths.here()
    cells = plan.select(found, axes)
    rows = plan.build(cells, axes, paths, CellOptions(), suite_digest(paths.root))
    print(plan.show(rows, found.format))
    return ExitCode.OK


def _run(found: argparse.Namespace) -> int:
    from matrix.commands import run

    return run.run(found, axes_module.load(), Paths.here())


def _checks(found: argparse.Namespace) -> int:
    from matrix.commands import queries

    return queries.checks(found, axes_module.load(), Paths.here())


def _bisect(found: argparse.Namespace) -> int:
    from matrix.commands import queries

    return queries.run_bisect(found, axes_module.load(), Paths.here())


if __name__ == "__main__":
    raise SystemExit(main())
