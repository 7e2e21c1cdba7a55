"""The portability grid, with a fake interpreter in place of cells."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.collect.disk import Keeper
from matrix.collect.venv import Made
from matrix.errors import ExitCode, UnresolvedError
from matrix.paths import Paths
from matrix.portability import runs
from matrix.portability.expected import Known

# Answers as a cell does, and does what plan.json beside it tells for "save CELL" and "load SAVER CELL".
FAKE = """#!{python}
import json, sys, pathlib, time
home = pathlib.Path(__file__).parent
arguments = sys.argv[3:]
act, folder = arguments[0], arguments[1]
record = pathlib.Path(arguments[arguments.index("--record") + 1])
header = json.loads(arguments[arguments.index("--header") + 1])
with (home / "calls").open("a") as calls:
    calls.write(f"{{act}} {{header['saver']}} {{header['cell']}}\\n")
plan = json.loads((home / "plan.json").read_text())
key = " ".join([act, header["saver"]] + ([header["cell"]] if act == "load" else []))
mode = plan.get(key, "pass")
with record.open("w") as stream:
    def write(**line):
        stream.write(json.dumps(line) + "\\n")
    write(kind="portability", act=act, torch="2.5.1+cu1", transformers="4.53.3", **header)
    for program in ("dynamic", "static"):
        if mode == "dies" and program == "static":
            stream.flush()
            sys.exit("Segmentation fault, say")
        answer = dict(status="pass" if mode == "dies" else mode, message="" if mode == "pass" else "why")
        for question in ("program", "context"):
            write(kind="answer", program=program, question=question, **answer)
    write(kind="end", finished=str(time.time_ns()))
"""
A, B = Cell("2.5", "4.53"), Cell("2.6", "4.48")


class House:
    """A folder with a fake interpreter."""

    def __init__(self, folder: Path, paths: Paths, axes: Axes) -> None:
        self.folder, self.paths, self.axes = folder, paths, axes
        self.python = folder / "python"
        self.python.write_text(FAKE.format(python=sys.executable), encoding="utf-8")
        self.python.chmod(0o755)
        self.modes({})
        self.unmade: set[Cell] = set()

    def modes(self, modes: dict[str, str]) -> None:
        (self.folder / "plan.json").write_text(json.dumps(modes))

    def make(self, cell: Cell) -> Made:
        if cell in self.unmade:
            raise UnresolvedError("the two do not fit")
        return Made(self.python, {"torch": "2.5.1", "transformers": "4.53.3"})

    def run(self, *, rerun: bool = False) -> int:
        selected = ["{torch2.5-tf4.53,torch2.6-tf4.48}-*"]
        found = argparse.Namespace(tier="smoke", select=selected, torch=None, transformers=None, subject="kvconform")
        found.torch_backend, found.rerun, found.out, found.disk_budget = None, rerun, None, "25"
        return runs.run(found, self.axes, self.paths, make=self.make)

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def report(self) -> dict:
        return json.loads((self.paths.portability / "portability.json").read_text())

    def statuses(self) -> dict[tuple[str, str, str, str], str]:
        return {
            (row["program"], row["question"], row["saver"], row["loader"]): row["status"]
            for row in self.report["results"]
        }


@pytest.fixture
def house(tmp_path: Path, paths: Paths, axes: Axes, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(runs, "load_known", lambda: ())
    # Measuring the machine's own cache would take a second a torch minor.
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return House(tmp_path, paths, axes)


def test_every_cell_saves_once_and_loads_what_each_saved(house: House) -> None:
    assert house.run() == ExitCode.OK
    assert [call.split()[0] for call in house.calls] == ["save"] * 2 + ["load"] * 4
    assert len(house.report["results"]) == 2 * 2 * 4
    assert house.report["counts"] == {"pass": 16}
    page = (house.paths.portability / "portability.md").read_text()
    assert "| 2.5/4.53 | ✓ | ✓ |" in page


def test_a_failure_is_a_regression_and_its_message_is_on_the_page(house: House) -> None:
    house.modes({f"load {A.id} {B.id}": "fail"})
    assert house.run() == ExitCode.REGRESSION
    assert house.statuses()["dynamic", "program", A.id, B.id] == "fail"
    page = (house.paths.portability / "portability.md").read_text()
    assert "| 2.5/4.53 | ✓ | ✗ |" in page
    assert "- **fail, wrong** dynamic (program), dynamic (context), static (program), static (context): `why`" in page


def test_what_was_not_saved_is_never_a_tick(house: House) -> None:
    house.modes({f"save {A.id}": "fail"})
    assert house.run() == ExitCode.REGRESSION
    rows = [row for row in house.report["results"] if row["saver"] == A.id]
    assert {row["status"] for row in rows} == {"fail"}
    assert {row["message"] for row in rows} == {"not saved: why"}


def test_not_applicable_is_no_regression(house: House) -> None:
    house.modes({f"load {A.id} {B.id}": "na"})
    assert house.run() == ExitCode.OK


def test_a_process_that_died_is_an_error_of_what_it_did_not_answer(house: House) -> None:
    house.modes({f"load {A.id} {B.id}": "dies"})
    assert house.run() == ExitCode.REGRESSION
    assert house.statuses()["dynamic", "program", A.id, B.id] == "pass"
    assert house.statuses()["static", "program", A.id, B.id] == "error"
    dead = next(row for row in house.report["results"] if row["status"] == "error")
    assert "Segmentation fault, say" in dead["message"]


def test_what_is_answered_is_not_asked_again(house: House) -> None:
    house.run()
    before = len(house.calls)
    assert house.run() == ExitCode.OK
    assert len(house.calls) == before
    house.run(rerun=True)
    assert len(house.calls) == 2 * before


def test_programs_saved_anew_are_loaded_anew(house: House) -> None:
    house.run()
    before = len(house.calls)
    (house.paths.home / ".cache/portability/kvconform/answers" / f"{A.id}.jsonl").unlink()
    assert house.run() == ExitCode.OK
    assert house.calls[before:] == [f"save {A.id} {A.id}", f"load {A.id} {B.id}", f"load {A.id} {A.id}"]


def test_an_interrupted_grid_is_written_and_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    original = runs._process

    def interrupted(work, made, saver, loader, header):
        if (saver, loader) == (B, A):
            raise KeyboardInterrupt
        original(work, made, saver, loader, header)

    monkeypatch.setattr(runs, "_process", interrupted)
    with pytest.raises(KeyboardInterrupt):
        house.run()
    assert house.statuses()["dynamic", "program", A.id, A.id] == "pass"
    assert house.statuses()["dynamic", "program", B.id, A.id] == "missing"
    before = len(house.calls)
    monkeypatch.setattr(runs, "_process", original)
    assert house.run() == ExitCode.OK
    assert len(house.calls) - before == 1


def test_a_cell_without_environment_is_told_and_the_others_run(house: House, capsys: pytest.CaptureFixture) -> None:
    house.unmade = {B}
    assert house.run() == ExitCode.UNRESOLVED
    assert list(house.report["cells"]) == [A.id]
    assert f"{B.id}: no environment: the two do not fit" in capsys.readouterr().err


def test_the_disk_is_bounded_and_what_was_made_last_is_asked_first(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    wanted: list[set[str]] = []
    monkeypatch.setattr(Keeper, "make_room", lambda keeper, torches: wanted.append(set(torches)) or "freed 4.0 GB")
    assert house.run() == ExitCode.OK
    # The fake environments are never there: each torch begins anew, and needs room.
    assert wanted == [{A.torch}, {B.torch}, {B.torch}, {A.torch}]
    assert "freed 4.0 GB" in capsys.readouterr().out
    assert [call for call in house.calls if call.startswith("load")] == [
        f"load {A.id} {B.id}",
        f"load {B.id} {B.id}",
        f"load {A.id} {A.id}",
        f"load {B.id} {A.id}",
    ]


KNOWN = Known("st*", "program", "fail", "older torch", "torch", {"saved_torch": ">=2.6", "loaded_torch": "<2.6"})


def test_what_is_expected_is_read_and_a_pass_of_it_is_stale(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "load_known", lambda: (KNOWN,))
    assert house.run() == ExitCode.REGRESSION
    assert house.report["verdicts"] == {"ok": 15, "fixed": 1}
