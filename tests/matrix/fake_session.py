"""Stands in for the nox session: the real one but for its environment and its suite.

usage: fake_session.py HOME CELL MODE [RECORDS], where MODE may say what one torch does: "pass,2.6=regress"
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from helpers import at, fake_check  # noqa: E402

from matrix.cells import axes  # noqa: E402
from matrix.cells.cell import Cell  # noqa: E402
from matrix.cells.options import CellOptions  # noqa: E402
from matrix.commands.cell import run_cell  # noqa: E402


def main(home: str, name: str, modes: str, records: str = "") -> int:
    default, *special = modes.split(",")
    cell = Cell.parse(name)
    mode = dict(text.split("=") for text in special).get(cell.torch, default)
    try:
        options = CellOptions(device=cell.device, records=Path(records) if records else None)
        return run_cell(cell, options, axes.load(), at(Path(home)), command=fake_check(mode))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
