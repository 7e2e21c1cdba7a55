from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from matrix.collect.locks import hold
from matrix.errors import ExitCode
from matrix.paths import Paths
from matrix.records import files
from tests.matrix.commands.test_cell import small_disk, wait_for
from tests.matrix.helpers import HERE

__all__ = ["small_disk"]

SMOKE = 6


def start(paths: Paths, mode: str, *options: str) -> subprocess.Popen[str]:
    line = [sys.executable, str(HERE / "drive_run.py"), str(paths.home), mode, *options]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def go(paths: Paths, mode: str, *options: str) -> tuple[int, str, str]:
    process = start(paths, mode, *options)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def complete(paths: Paths) -> int:
    return sum(files.read(path).complete for path in paths.records.glob("*.jsonl"))


def test_without_options_the_smoke_tier_runs_and_a_second_run_has_nothing_to_do(paths: Paths) -> None:
    code, out, _ = go(paths, "pass", "--jobs", "2")
    assert code == ExitCode.OK
    assert complete(paths) == SMOKE
    assert "6 cells to run" in out
    assert "about" in out  # the time left
    code, out, _ = go(paths, "pass")
    assert code == ExitCode.OK
    assert "0 cells to run, 6 answered already" in out


def test_what_regressed_is_named_and_stays_a_regression_when_it_is_not_run_again(paths: Paths) -> None:
    code, out, _ = go(paths, "pass,2.6=regress")
    assert code == ExitCode.REGRESSION
    assert "REGRESSED" in out
    assert "python -m nox -s \"conformance(torch='2.6', transformers='4.48')\"" in out
    code, out, _ = go(paths, "pass")
    assert "0 cells to run" in out
    assert code == ExitCode.REGRESSION


def test_rerun_runs_what_is_recorded(paths: Paths) -> None:
    go(paths, "pass", "--torch", "2.5", "--transformers", "4.53")
    code, out, _ = go(paths, "pass", "--torch", "2.5", "--transformers", "4.53", "--rerun")
    assert "1 cells to run" in out
    assert code == ExitCode.OK


def test_a_record_of_another_suite_is_run_again(paths: Paths) -> None:
    go(paths, "old", "--select", "torch2.5-tf4.53-*")
    _, out, _ = go(paths, "pass", "--select", "torch2.5-tf4.53-*")
    assert "1 cells to run" in out


def test_the_next_cells_are_run_and_then_those_after_them(paths: Paths) -> None:
    cells = ("--torch", "2.5", "--transformers", "4.46..4.49")
    for done, still in ((2, 2), (4, 2), (4, 0)):
        code, out, _ = go(paths, "pass", *cells, "--next", "2")
        assert code == ExitCode.OK
        assert f"{still} cells to run" in out
        assert complete(paths) == done
    assert "4 answered already" in out


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--tier", "nope"], ExitCode.USAGE, "unknown tier"),
        (["--torch", "9.9"], ExitCode.USAGE, "nearest"),
        (["--select", "torch7*"], ExitCode.EMPTY, "near misses"),
        (["--jobs", "0"], ExitCode.USAGE, "--jobs"),
        (["--next", "0"], ExitCode.USAGE, "give 1 or more"),
        (["--next", "many"], ExitCode.USAGE, "give 1 or more"),
        (["--disk-budget", "none"], ExitCode.USAGE, "--disk-budget"),
        (["--torch", "2.5", "--transformers", "5.23"], ExitCode.UNRESOLVED, "needs torch >=2.6"),
        (["--nope"], ExitCode.USAGE, "unrecognized"),
    ],
)
def test_bad_requests_are_one_error(paths: Paths, options: list[str], code: int, told: str) -> None:
    found, out, err = go(paths, "pass", *options)
    assert found == code
    assert told in err
    assert err.count("error:") == 1
    assert "Traceback" not in err + out
    assert "next:" in err


def test_two_runs_at_once(paths: Paths) -> None:
    with hold(paths.locks / "run.lock", "a matrix run"):
        code, _, err = go(paths, "pass")
    assert code == ExitCode.USAGE
    assert f"already running, as process {os.getpid()}" in err


def test_ctrl_c_once_lets_running_cells_finish(paths: Paths) -> None:
    process = start(paths, "slow", "--jobs", "2")
    wait_for(lambda: list(paths.logs.glob("*.log")))
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Ctrl-C again" in out
    assert 1 <= complete(paths) < SMOKE
    assert complete(paths) == len(list(paths.records.glob("*.jsonl")))


def test_ctrl_c_twice_ends_at_once_and_keeps_what_there_is(paths: Paths) -> None:
    go(paths, "pass", "--torch", "2.5", "--transformers", "4.53")
    process = start(paths, "hang", "--jobs", "2", "--rerun")
    wait_for(lambda: len(list(paths.records.glob("*.part"))) == 2)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in out + err
    assert not list(paths.records.glob("*.part"))
    assert complete(paths) == 1  # the one from before
    kept = [files.read(path) for path in paths.records.glob("*.jsonl*")]
    assert {tuple(record.status for record in run.records) for run in kept if not run.complete} == {
        ("pass", "missing", "missing")
    }


def asked(paths: Paths) -> Counter[str]:
    """How often each check of each cell was really asked."""
    log = paths.records.with_name("asked.log")
    return Counter(log.read_text(encoding="utf-8").splitlines() if log.exists() else [])


@pytest.mark.parametrize("rest", ["at once", "after a while"])
def test_a_run_that_was_killed_goes_on_and_nothing_is_lost_or_asked_twice(paths: Paths, rest: str) -> None:
    process = start(paths, "carry-hang,2.5=carry", "--jobs", "2")
    # One cell is whole; two others have answered a check each, and hang in the next.
    wait_for(lambda: complete(paths) == 1 and len(asked(paths)) == 3 + 2)
    before = asked(paths)
    process.kill()
    process.communicate(timeout=10)
    if rest == "after a while":
        wait_for(lambda: not sessions(paths))
        assert not list(paths.records.glob("*.part"))
    code, out, err = go(paths, "carry", "--jobs", "2")
    assert code == ExitCode.OK, out + err
    assert "5 cells to run, 1 answered already" in out
    assert complete(paths) == SMOKE
    assert [path.name for path in paths.records.iterdir() if not path.name.endswith(".jsonl")] == []
    assert set(asked(paths).values()) == {1}
    assert before < asked(paths)
    assert len(asked(paths)) == SMOKE * 3


def sessions(paths: Paths) -> list[str]:
    """The processes that run something for a house."""
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(paths.home) in line]


def test_a_full_disk_stops_the_run_and_keeps_the_records(small_disk: Path) -> None:
    paths = Paths(home=small_disk / "home")
    code, _, err = go(paths, "pass,2.6=huge")
    if "less than 1 GB" in err:  # the check before the first cell sees it coming
        assert code == ExitCode.UNRESOLVED
        assert err.count("error:") == 1
        return
    assert code == ExitCode.UNRESOLVED
    assert complete(paths) >= 1
