"""`python -m matrix plan`."""

from __future__ import annotations

import argparse

from matrix.cells import axes as axes_module
from matrix.cells.cell import DEVICES
from matrix.cells.options import CellOptions
from matrix.cells.selection import add_selection_options, select
from matrix.collect.answers import Answers
from matrix.collect.digest import suite
from matrix.collect.plan import build, show
from matrix.errors import ExitCode
from matrix.paths import Paths

NAME = "plan"
HELP = "show each cell, whether it runs, and why or why not"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_selection_options(parser)
    parser.add_argument("--format", choices=("table", "json", "github"), default="table")
    parser.add_argument("--python", metavar="X.Y", help="the cells' interpreter")
    parser.add_argument("--device", choices=DEVICES, help="the cells' device")


def run(found: argparse.Namespace) -> int:
    """Print the plan."""
    axes, paths = axes_module.load(), Paths.here()
    answers = Answers(paths, CellOptions(), suite(paths.root))
    print(show(build(select(found, axes), axes, answers), found.format))
    return ExitCode.OK
