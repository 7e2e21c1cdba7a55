"""The real suite on a few planted checks, through the session: asked once, then only what changed."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import session
from matrix.collect.outcome import Outcome
from matrix.collect.session import Run
from matrix.paths import ROOT, Paths
from matrix.records import files, parquet
from matrix.records.lines import CellRun

pytest.importorskip("xdist", reason="the suite runs in workers of pytest-xdist")
pytest.importorskip("transformers", reason="the suite is about transformers")

CHECKS = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_one(subject, number):
    open(LOG, "a").write("x")
    assert number != 1
"""


class Asking:
    """A suite of two categories that counts how often a check is asked."""

    def __init__(self, folder: Path, axes: Axes, paths: Paths) -> None:
        self.log, self.suite, self.axes, self.paths = folder / "log", folder / "suite", axes, paths
        self.suite.mkdir()
        for name in ("first", "second"):
            self.write(name)

    def write(self, name: str, more: str = "") -> None:
        (self.suite / f"test_{name}.py").write_text(f"LOG = {str(self.log)!r}\n{CHECKS}{more}", encoding="utf-8")

    def ask(self, *subjects: str, **options: object) -> tuple[int, CellRun]:
        """Ask the cell of this environment; returns how many checks were really asked, and the record."""
        self.log.write_text("", encoding="utf-8")
        run = Run(cell(), replace(CellOptions(device="cpu"), **options), self.axes, self.paths)  # type: ignore[arg-type]
        names = [f"--subject={name}" for name in subjects or ("native",)]

        def command(run: Run, part: Path) -> list[str]:
            line = [sys.executable, "-m", "kvconform", "check", "--suite", str(self.suite), "--jobs=1", *names]
            line += ["--device", "cpu"]
            return [*line, "--record", str(part), *(f"--carry={path}" for path in session.earlier(run))]

        with pytest.MonkeyPatch.context() as patch:
            there = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'conformance'}"}
            patch.setattr(session, "suite_variables", lambda _: there)
            found = session.collect(run, Outcome(run.cell.id), command)
        assert found.record is not None
        return len(self.log.read_text(encoding="utf-8")), files.read(found.record)


def cell() -> Cell:
    import importlib.metadata

    torch, transformers = (importlib.metadata.version(name).split("+")[0] for name in ("torch", "transformers"))
    minors = [".".join(version.split(".")[:2]) for version in (torch, transformers)]
    return Cell(*minors, ".".join(map(str, sys.version_info[:2])))


def test_only_what_changed_is_missing_or_is_new_is_asked_again(tmp_path: Path, axes: Axes, paths: Paths) -> None:
    asking = Asking(tmp_path, axes, paths)
    asked, first = asking.ask()
    assert (asked, first.counts(), first.complete) == (6, {"pass": 4, "fail": 2}, True)
    assert not any(record.asked for record in first.records)

    # The run was killed after four answers, in the middle of a line, and then somebody wrote a comment.
    final = paths.records / f"{cell().id}.jsonl"
    lines = final.read_text(encoding="utf-8").splitlines(keepends=True)
    answered = [at for at, line in enumerate(lines) if json.loads(line)["kind"] == "check"]
    torn = "".join(lines[: answered[3] + 1]) + lines[answered[4]][:40]
    final.with_suffix(".jsonl.part").write_text(torn, encoding="utf-8")
    final.unlink()
    asking.write("second", "# words")
    asked, whole = asking.ask()
    assert (asked, whole.counts(), whole.complete) == (2, first.counts(), True)
    assert [path.name for path in paths.records.iterdir()] == [final.name]
    assert {record.asked for record in whole.records} == {first.environment.started, ""}

    # Published, a category changed, a subject added.
    parquet.write(paths.published, [whole])
    final.unlink()
    asking.write("second", "CHANGED = 1")
    asked, more = asking.ask("native", "kvconform")
    assert (asked, more.counts()) == (9, {"pass": 8, "fail": 4})
    taken = {(record.subject, record.category) for record in more.records if record.asked}
    assert taken == {("native", "first")}
