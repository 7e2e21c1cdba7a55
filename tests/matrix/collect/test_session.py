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
from matrix.records import files, parquet
from matrix.records.writing import put
from tests.matrix import factories
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


def records(paths: Paths, options: CellOptions, axes: Axes, *names: str) -> list[str]:
    run = Run(CELL, options, axes, paths)
    run.record.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        run.record.with_suffix(f".jsonl{name}").write_text("x", encoding="utf-8")
    return [path.name.removeprefix(CELL.id) for path in session.earlier(run)]


def test_earlier_answers_are_taken_over_unless_all_is_to_be_asked(axes: Axes, paths: Paths) -> None:
    run = factories.cell_run(CELL.torch, CELL.transformers)
    parquet.write(paths.published, [run])
    every = [".jsonl.left", ".jsonl.interrupted", ".jsonl", ".jsonl.published"]
    assert records(paths, ASKED, axes, "", ".left", ".interrupted") == every
    assert files.read(paths.records / f"{CELL.id}.jsonl.published") == run
    for asked in (replace(ASKED, rerun=True), replace(ASKED, fresh=True)):
        assert records(paths, asked, axes) == []
    # Published is what a run without a selection answered, of the default place.
    assert records(paths, replace(ASKED, keyword="x"), axes) == []
    assert records(paths, replace(ASKED, records=paths.home / "new"), axes) == []


def test_answers_to_some_subjects_are_taken_over_by_the_next_whole_run(axes: Axes, paths: Paths) -> None:
    partial = paths.partial / FINAL
    put(partial, "x")
    assert session.earlier(Run(CELL, ASKED, axes, paths)) == [partial]
    assert session.earlier(Run(CELL, replace(ASKED, rerun=True), axes, paths)) == []
    assert session.earlier(Run(CELL, replace(ASKED, records=paths.home / "new"), axes, paths)) == []


def test_what_a_killed_run_had_written_is_kept_until_it_is_taken_over(axes: Axes, paths: Paths) -> None:
    final = paths.records / FINAL
    part, left = final.with_suffix(".jsonl.part"), final.with_suffix(".jsonl.left")
    answered, begun = b'{"kind": "cell"}\n{"id": "x", "kind": "check"}\n', b'{"kind": "cell"}\n'
    paths.records.mkdir(parents=True)
    part.write_bytes(answered)
    session.prepare(part)
    assert (left.read_bytes(), part.exists()) == (answered, False)
    # Killed again before it had taken the answers over: they are still there.
    part.write_bytes(begun)
    session.prepare(part)
    assert (left.read_bytes(), part.exists()) == (answered, False)
    part.write_bytes(begun)
    settle(part, final)
    assert left.exists()
    part.write_bytes(answered)
    settle(part, final)
    assert not left.exists()
