from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import locks, venv
from matrix.collect.outcome import Outcome
from matrix.commands.cell import run_cell
from matrix.errors import ExitCode, MakingError, UnresolvedError
from matrix.paths import Paths
from matrix.records import files
from tests.matrix.helpers import CELL, FAKE_SESSION, at, fake_check

ASKED = CellOptions(device="cpu")
FINAL = f"{CELL.id}.jsonl"


def go(axes: Axes, paths: Paths, mode: str, options: CellOptions = ASKED) -> int:
    return run_cell(CELL, options, axes, paths, command=fake_check(mode))


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("pass", ExitCode.OK),
        ("regress", ExitCode.REGRESSION),
        ("die", ExitCode.REGRESSION),
        ("silent", ExitCode.REGRESSION),
        ("usage", ExitCode.USAGE),
        ("empty", ExitCode.EMPTY),
        ("mismatch", ExitCode.UNRESOLVED),
    ],
)
def test_exit_codes(axes: Axes, paths: Paths, mode: str, code: int) -> None:
    assert go(axes, paths, mode) == code
    outcome = Outcome.load(paths, CELL)
    assert outcome is not None
    assert outcome.exit_code == code


def test_the_summary_names_the_failing_check_and_its_command(
    axes: Axes, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    go(axes, paths, "regress")
    told = capsys.readouterr().out
    assert "export/three" in told
    assert "python -m kvconform check --subject kvconform -k 'export/three'" in told


def test_a_line_tells_that_the_checks_begin_though_nothing_is_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, str(FAKE_SESSION), str(tmp_path / "home"), CELL.id, "pass"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"{CELL.venv}: running the checks"]


@pytest.mark.parametrize("mode", ["die", "silent", "usage", "empty", "mismatch"])
def test_a_run_that_went_wrong_loses_no_earlier_record(axes: Axes, paths: Paths, mode: str) -> None:
    go(axes, paths, "pass")
    before = (paths.records / FINAL).read_bytes()
    go(axes, paths, mode)
    assert (paths.records / FINAL).read_bytes() == before
    assert not list(paths.records.glob("*.part"))
    if mode == "die":
        assert not files.read(paths.records / f"{FINAL}.interrupted").complete


def test_an_incomplete_first_record_is_kept_and_says_so(
    axes: Axes, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    go(axes, paths, "die")
    run = files.read(paths.records / FINAL)
    assert not run.complete
    assert [record.status for record in run.records] == ["pass", "missing", "missing"]
    assert "is incomplete" in capsys.readouterr().err


def test_less_than_everything_is_recorded_apart(axes: Axes, paths: Paths) -> None:
    go(axes, paths, "pass")
    before = (paths.records / FINAL).read_bytes()
    go(axes, paths, "regress", replace(ASKED, keyword="three"))
    assert (paths.records / FINAL).read_bytes() == before
    assert (paths.partial / FINAL).exists()


def test_a_bad_baseline_is_told_before_anything_runs(
    axes: Axes, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.baseline.write_text("[[expected", encoding="utf-8")
    assert go(axes, paths, "pass") == ExitCode.USAGE
    assert "baseline.toml" in capsys.readouterr().err
    assert not (paths.records / FINAL).exists()


def test_two_runs_of_one_cell_at_once(axes: Axes, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    go(axes, paths, "pass")
    with locks.hold(paths.locks / f"{CELL.venv}.lock", "it"):
        assert go(axes, paths, "regress") == ExitCode.USAGE
    assert "already running" in capsys.readouterr().err
    assert files.read(paths.records / FINAL).complete


def test_what_cannot_exist_becomes_an_unresolved_record(
    axes: Axes, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell("2.5", "5.23")
    assert run_cell(cell, ASKED, axes, paths) == ExitCode.UNRESOLVED
    assert "needs torch >=2.6" in capsys.readouterr().err
    assert files.read(paths.records / f"{cell.id}.jsonl").unresolved == "transformers 5.23 needs torch >=2.6"


def test_something_unknown_beside_is_a_mistake_and_no_fact_about_the_cell(
    axes: Axes, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cell(Cell("2.5", "4.53", extra="optre"), ASKED, axes, paths) == ExitCode.USAGE
    assert "unknown --extra 'optre'; there are optree" in capsys.readouterr().err
    assert not list(paths.records.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("error", "cell", "count"),
    [
        (UnresolvedError("no such pair"), CELL, 1),
        (MakingError("no network"), CELL, 0),
        (MakingError("no network"), Cell("nightly", "main"), 1),
    ],
)
def test_only_facts_about_the_cell_are_recorded(
    axes: Axes, paths: Paths, *, monkeypatch: pytest.MonkeyPatch, error: Exception, cell: Cell, count: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(venv, "make", fail)
    assert run_cell(cell, ASKED, axes, paths) == ExitCode.UNRESOLVED
    assert len(list(paths.records.glob("*.jsonl"))) == count


def test_without_a_network_the_earlier_record_stays(
    axes: Axes, paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go(axes, paths, "pass")
    before = (paths.records / FINAL).read_bytes()
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(paths.home / "empty-cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    assert run_cell(CELL, ASKED, axes, paths) == ExitCode.UNRESOLVED
    told = capsys.readouterr().err
    assert "\nerror: the package index did not answer" in told
    assert told.count("error:") == 1
    assert (paths.records / FINAL).read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_cell_keeps_what_it_has(axes: Axes, paths: Paths, number: int) -> None:
    go(axes, paths, "pass")
    process = subprocess.Popen(
        [sys.executable, str(FAKE_SESSION), str(paths.home), CELL.id, "hang"], start_new_session=True
    )
    part = paths.records / f"{FINAL}.part"
    wait_for(lambda: part.exists() and "round-trip/two" in part.read_text(encoding="utf-8").splitlines()[-1])
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    assert process.wait(15) == ExitCode.INTERRUPTED
    assert files.read(paths.records / FINAL).complete
    kept = files.read(paths.records / f"{FINAL}.interrupted")
    assert [record.status for record in kept.records] == ["pass", "missing", "missing"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_while_recording_loses_no_record(
    axes: Axes, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = at(small_disk / "home")
    go(axes, paths, "pass")
    before = (paths.records / FINAL).read_bytes()
    assert go(axes, paths, "huge") == ExitCode.REGRESSION
    told = capfd.readouterr().err
    assert "the disk is full" in told
    assert told.count("error:") == 1
    assert (paths.records / FINAL).read_bytes() == before


def test_a_full_disk_while_making_the_environment(
    axes: Axes, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = at(small_disk / "home")
    (paths.home / "filler").write_bytes(b"x" * 1000)
    with (paths.home / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        for _ in range(1000):
            filler.write(b"x" * 4096)
    assert run_cell(CELL, ASKED, axes, paths) == ExitCode.UNRESOLVED
    told = capsys.readouterr().err
    assert told.count("error:") == 1
    assert "disk is full" in told


def wait_for(happens: object) -> None:
    for _ in range(100):
        if happens():  # type: ignore[operator]
            return
        time.sleep(0.1)
    raise TimeoutError
