"""`python -m matrix checks`: the checks of an environment that exists, else of the newest record."""

from __future__ import annotations

import argparse
import subprocess

from matrix.cells import axes as axes_module
from matrix.cells.options import CellOptions
from matrix.cells.selection import add_selection_options, select
from matrix.collect.answers import Answers
from matrix.collect.digest import suite
from matrix.collect.venv import python_of
from matrix.errors import EmptySelectionError, ExitCode
from matrix.paths import Paths

NAME = "checks"
HELP = "list the checks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_selection_options(parser)
    parser.add_argument("--category", action="append", default=[], help="only this category; may repeat")


def run(found: argparse.Namespace) -> int:
    """Print the ids of the checks."""
    paths = Paths.here()
    cells = select(found, axes_module.load())
    for cell in reversed(cells):
        python = python_of(cell, paths)
        if python.exists():
            command = [str(python), "-m", "kvconform", "check", "--list"]
            command += [f"--category={name}" for name in found.category]
            return subprocess.run(command, check=False, cwd=paths.root).returncode
    answers = Answers(paths, CellOptions(), suite(paths.root))
    for cell in reversed(cells):
        answer = answers.of(cell)
        if answer and (records := answer.run().records):
            wanted = {record.id for record in records if not found.category or record.category in found.category}
            print("\n".join(sorted(wanted)))
            return ExitCode.OK
    message = "no environment and no record to read the checks from"
    raise EmptySelectionError(message, "python -m matrix run --tier smoke")
