"""What tests of the host share; imports no pytest, since the fake sessions import it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from matrix.cells.cell import Cell
from matrix.cells.options import EVERY_SUBJECT
from matrix.collect.digest import Suite
from matrix.collect.session import earlier
from matrix.paths import Paths

HERE = Path(__file__).parent
CELL = Cell("2.5", "4.53")
SUITE = Suite("DIGEST", {name: {"round-trip": "DIGEST", "export": "DIGEST"} for name in EVERY_SUBJECT})
"""The sources that the fake check says that it is about."""
FAKE_CHECK = HERE / "fake_check.py"
FAKE_SESSION = HERE / "fake_session.py"


def at(home: Path) -> Paths:
    home.mkdir(parents=True, exist_ok=True)
    baseline = home / "baseline.toml"
    baseline.touch()
    return replace(Paths(), home=home, baseline=baseline)


def fake_check(mode: str) -> Callable[..., list[str]]:
    """A `Command` of matrix.session: a script that streams a record and misbehaves as told."""
    return lambda run, part: [sys.executable, str(FAKE_CHECK), str(part), run.cell.id, mode, *map(str, earlier(run))]


def fake_session(home: Path, mode: str, records: Path | None = None) -> Callable[[Cell], list[str]]:
    """A `CellCommand` of matrix.fanout: a whole session around the fake check."""
    where = [str(records.resolve())] if records else []
    return lambda cell: [sys.executable, str(FAKE_SESSION), str(home), cell.id, mode, *where]
