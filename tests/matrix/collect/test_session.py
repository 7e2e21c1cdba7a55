from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import session
from matrix.collect.session import Run, settle
from matrix.paths import Paths
from tests.matrix.helpers import CELL

ASKED = CellOptions(device="cpu")
FINAL = f"{CELL.id}.jsonl"


@pytest.mark.parametrize("complete_before", [True, False])
def test_settling_without_a_record_leaves_the_earlier_one(tmp_path: Path, complete_before: bool) -> None:
    final = tmp_path / FINAL
    if complete_before:
        final.write_text("x", encoding="utf-8")
    (tmp_path / "a.part").touch()
    assert settle(tmp_path / "a.part", final) is None
    assert final.exists() == complete_before


def test_the_command_says_what_the_cell_is(axes: Axes, paths: Paths) -> None:
    options = replace(ASKED, subjects=("native",), categories=("export",), keyword="x", timeout=3.0, jobs=1)
    line = session.check_command(Run(CELL, options, axes, paths), Path("python"), Path("r.part"))
    text = " ".join(line)
    assert text.startswith("python -m kvconform check --record r.part --cell torch2.5-tf4.53-py3.11-cpu --digest ")
    assert "--expect=torch=2.5 --expect=transformers=4.53 --subject=native --category=export -k x" in text
    assert "--timeout 3.0 --jobs 1" in text
    moving = session.check_command(Run(Cell("nightly", "main"), options, axes, paths), Path("p"), Path("r"))
    assert not any("--expect" in part for part in moving)


def test_nothing_of_the_hosts_python_reaches_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}
    for name in dropped:
        monkeypatch.setenv(name, "/somewhere")
    found = session.suite_variables(ASKED)
    assert not dropped & found.keys()
    assert "PYTHONPATH" in session.suite_variables(replace(ASKED, subjects=("mine:subject",)))
