from __future__ import annotations

import json

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import plan
from matrix.collect.answers import Answers
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
