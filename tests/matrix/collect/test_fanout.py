"""How cells are started and stopped; whole runs of processes are in tests/matrix/commands/test_run.py."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Self

import pytest

from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import fanout
from matrix.collect.fanout import Fanout, Stop, expect_disk, session_command, signals
from matrix.collect.outcome import Outcome
from matrix.errors import ExitCode, UserError
from matrix.paths import Paths

CELLS = (Cell("2.10", "5.5"), Cell("2.9", "4.57"), Cell("2.9", "4.56"))


class Silent:
    """A display that remembers what it was asked to show."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def started(self, cell: Cell) -> None:
        self.names.append(cell.id)

    def finished(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        self.names.append(f"{cell.id} {outcome.exit_code}")

    def note(self, text: str) -> None:
        self.notes.append(text)


def ends(code: int) -> list[str]:
    return [sys.executable, "-c", f"print('its words'); raise SystemExit({code})"]


def test_cells_run_in_the_order_of_versions_and_their_output_goes_to_a_log(paths: Paths) -> None:
    shown = Silent()
    outcomes = Fanout(paths, lambda _: ends(0), 1, shown).run(CELLS)
    assert [outcome.cell for outcome in outcomes] == [cell.id for cell in sorted(CELLS, key=lambda cell: cell.order)]
    assert outcomes[0].cell == "torch2.9-tf4.56-py3.11-cpu"
    assert {outcome.exit_code for outcome in outcomes} == {ExitCode.OK}
    assert (paths.logs / f"{CELLS[0].id}.log").read_text(encoding="utf-8") == "its words\n"
    assert not shown.notes


@pytest.mark.parametrize(
    ("code", "meant"), [(1, ExitCode.REGRESSION), (4, ExitCode.UNRESOLVED), (7, ExitCode.REGRESSION)]
)
def test_a_code_that_is_not_documented_is_a_regression_and_says_where_to_look(
    paths: Paths, code: int, meant: int
) -> None:
    shown = Silent()
    (outcome,) = Fanout(paths, lambda _: ends(code), 1, shown).run(CELLS[:1])
    assert outcome.exit_code == meant
    assert ("died with code 7" in outcome.error) == (code == 7)
    assert f"see .cache/logs/{CELLS[0].id}.log" in shown.notes[0]


def test_an_outcome_of_an_earlier_run_is_not_taken_for_this_one(paths: Paths) -> None:
    Outcome(CELLS[0].id, ExitCode.OK, counts={"pass": 99}).save(paths)
    (outcome,) = Fanout(paths, lambda _: ends(1), 1, Silent()).run(CELLS[:1])
    assert outcome.counts == {}


def test_nothing_starts_once_a_stop_is_asked_for(paths: Paths) -> None:
    stop = Stop()
    stop.ask()
    assert Fanout(paths, lambda _: ends(0), 1, Silent(), stop=stop).run(CELLS) == []


def test_signals_are_counted_and_handed_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop = Stop()
    with signals(stop):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == 1
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == 2
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == 3
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_sigterm_alone_ends_the_cells_at_once() -> None:
    stop = Stop()
    with signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.asked == 2


def test_a_cell_is_started_as_a_user_would_start_it(paths: Paths) -> None:
    options = CellOptions(subjects=("native",), timeout=3.0, device="cuda")
    line = session_command(options, paths)(Cell("2.5", "4.53", device="cuda"))
    assert list(line[:3]) == [sys.executable, "-m", "nox"]
    at = list(line).index("--session")
    assert line[at + 1] == "conformance(torch='2.5', transformers='4.53')"
    assert {"--subject=native", "--timeout=3.0", "--device=cuda"} <= set(line[at + 2 :])
    beside = session_command(CellOptions(), paths)(Cell("2.15", "5.23", "3.12", extra="optree"))
    assert list(beside[-3:]) == ["--python=3.12", "--extra=optree", "--device=cpu"]


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_disk(tmp_path / "new")
    assert (tmp_path / "new").is_dir()
    free = 10**9 - 1
    monkeypatch.setattr(fanout.os, "statvfs", lambda _: type("Stat", (), {"f_bavail": free, "f_frsize": 1})())
    with pytest.raises(UserError, match="less than 1 GB is free") as caught:
        expect_disk(tmp_path)
    assert caught.value.exit_code == ExitCode.UNRESOLVED
