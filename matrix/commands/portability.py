"""`python -m matrix portability`."""

from __future__ import annotations

import argparse
from pathlib import Path

from matrix.cells.selection import add_selection_options

NAME = "portability"
HELP = "save programs in each cell, load them in every other"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_selection_options(parser)
    parser.add_argument("--subject", default="kvconform", help="kvconform, native, exporter or module:attribute")
    parser.add_argument("--torch-backend", metavar="NAME", help="as for run")
    parser.add_argument("--rerun", action="store_true", help="ask also what is answered")
    parser.add_argument("--disk-budget", default="25", metavar="GB", help="as for run (25)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="for the grid (default: .cache/portability; with reports it is published)",
    )


def run(found: argparse.Namespace) -> int:
    """Fill the grid of the selected cells (without a selection: the smoke tier), write it, and show it."""
    from matrix.cells import axes
    from matrix.paths import Paths
    from matrix.portability import runs

    return runs.run(found, axes.load(), Paths.here())
