from __future__ import annotations

import io

import pytest
from rich.console import Console

from matrix.cells.cell import Cell
from matrix.collect.progress import Board, Clock, Plain, display, line, spell
from matrix.collect.session import Outcome
from matrix.errors import ExitCode
from tests.matrix.helpers import CELL

OTHER = Cell("2.6", "4.48")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (42, "42 s"), (185, "3 min 5 s"), (4800, "1 h 20 min")])
def test_durations(seconds: float, text: str) -> None:
    assert spell(seconds) == text


def test_the_time_left_comes_from_before_and_from_the_mean() -> None:
    clock = Clock([CELL, OTHER], {CELL.id: 60}, jobs=1)
    assert clock.left() == "about 2 min 0 s left"
    clock.finish(CELL, 30)
    assert clock.left() == "about 30 s left"
    clock.finish(OTHER, 30)
    assert clock.left() == ""
    assert Clock([CELL], {}, jobs=1).left() == ""


def test_a_finished_cell_is_one_line() -> None:
    clock = Clock([CELL, OTHER], {}, jobs=2)
    clock.finish(CELL, 61)
    text = line(clock, CELL, Outcome(CELL.id, ExitCode.REGRESSION, counts={"regressed": 1, "pass": 9}), 61)
    assert text.split("  ")[0] == "[1/2]"
    assert "REGRESSED" in text
    assert "1 regressed, 9 pass" in text
    assert "about 1 min 1 s left" in text


def test_logs_get_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with display(Clock([CELL], {}, jobs=1)) as shown:
        assert isinstance(shown, Plain)
        shown.started(CELL)
        shown.finished(CELL, Outcome(CELL.id), 1)
        shown.note("note")
    text = capsys.readouterr().out
    assert [part.split()[0] for part in text.splitlines()] == ["start", "[1/1]", "note"]
    assert "\x1b" not in text


def test_a_terminal_gets_a_board() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Board(Clock([CELL, OTHER], {OTHER.id: 5}, jobs=1), console) as board:
        board.started(CELL)
        board.finished(CELL, Outcome(CELL.id, ExitCode.UNRESOLVED, error="no\nsuch pair"), 1)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "unresolved" in text
    assert "of 2 cells" in text
