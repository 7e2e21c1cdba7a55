"""`python -m matrix run` with fake cells, for tests that need a process to interrupt.

usage: drive_run.py HOME MODE [OPTION]...
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from unittest import mock

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from helpers import FAKE_SESSION, SUITE, at, fake_session  # noqa: E402

from matrix import __main__ as command_line  # noqa: E402
from matrix.cells import axes  # noqa: E402
from matrix.cells.options import CellOptions  # noqa: E402
from matrix.collect.fanout import CellCommand  # noqa: E402
from matrix.collect.machines.worker import run_group  # noqa: E402
from matrix.commands import run  # noqa: E402
from matrix.paths import Paths  # noqa: E402


def fake_sessions(mode: str, options: CellOptions, paths: Paths) -> CellCommand:
    """What a machine of Dask starts. As a function of this script it travels whole: the machine needs no tests."""
    script = str(FAKE_SESSION)
    return lambda cell: [sys.executable, script, str(paths.home), cell.id, mode]


def main(home: str, mode: str, *options: str) -> int:
    paths = at(Path(home))
    # Measuring the machine's own cache would take a second a torch minor.
    os.environ["UV_CACHE_DIR"] = str(paths.home / "uv")

    def fake(found: object) -> int:
        with mock.patch("matrix.commands.run.suite", return_value=SUITE):
            task = partial(run_group, makes_command=partial(fake_sessions, mode))
            return run.run_cells(
                found, axes.load(), paths, command=fake_session(paths.home, mode, found.records), task=task
            )

    with mock.patch.object(run, "run", fake):
        return command_line.main(["run", "--device", "cpu", "--disk-budget", "1000", *options])


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
