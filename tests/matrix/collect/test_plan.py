from __future__ import annotations

import json
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import plan
from matrix.collect.answers import Answer, Answers
from matrix.paths import Paths
from tests.matrix.helpers import CELL, SUITE

ASKED = CellOptions(device="cpu")


def test_the_table_says_why_not(axes: Axes, paths: Paths) -> None:
    rows = plan.build([CELL, Cell("2.5", "5.23")], axes, Answers(paths, ASKED, SUITE))
    text = plan.as_table(rows)
    assert "torch2.5-tf5.23-py3.11-cpu  not        transformers 5.23 needs torch >=2.6" in text
    assert text.endswith("2 cells: 1 to run, 1 cannot be made")


def test_json_is_json(axes: Axes, paths: Paths) -> None:
    rows = plan.build(axes.tier("smoke"), axes, Answers(paths, ASKED, SUITE))
    told = {"state": "run", "why": "never asked", "current": 0, "answers": 0}
    assert json.loads(plan.as_json(rows))[0] == {**CELL.to_json(), **told}


@st.composite
def answers_of(draw: st.DrawFn, cell: Cell) -> Answer | None:
    total = draw(st.integers(0, 5))
    current = draw(st.integers(0, total))
    why = "sources changed" if current < total or not total else draw(st.sampled_from(["", "incomplete"]))
    asked = draw(st.sampled_from(["2026-11-01", "2026-11-02"]))
    return draw(st.sampled_from([None, Answer(cell.id, "recorded", Path(), why, current, total, asked)]))


@st.composite
def plans(draw: st.DrawFn) -> list[plan.Planned]:
    cells = [Cell(torch, release) for torch in ("2.9", "2.10") for release in ("4.57", "5.0", "5.10")]
    return [plan.Planned(cell, draw(st.sampled_from([None, "no"])), draw(answers_of(cell))) for cell in cells]


@given(plans(), st.integers(1, 7))
def test_due_is_what_changed_most_and_then_what_is_oldest(rows: list[plan.Planned], count: int) -> None:
    waiting = [row for row in rows if row.state == "run"]
    chosen = plan.due(rows, count)
    left = [row for row in waiting if row not in chosen]
    assert len(chosen) == min(count, len(waiting))
    assert chosen == [row for row in rows if row in chosen]
    for row in chosen:
        for other in left:
            assert row.changed >= other.changed
            if row.changed == other.changed:
                assert (row.answer.asked if row.answer else "") <= (other.answer.asked if other.answer else "")


def test_of_cells_never_asked_the_newest_are_due(axes: Axes, paths: Paths) -> None:
    cells = [Cell("2.9", "4.57"), Cell("2.15", "5.9"), Cell("2.15", "5.23")]
    rows = plan.build(cells, axes, Answers(paths, ASKED, SUITE))
    assert [row.cell for row in plan.due(rows, 2)] == cells[1:]
