from __future__ import annotations

import json

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import plan
from matrix.collect.answers import Answers
from matrix.collect.plan import Planned
from matrix.errors import EmptySelectionError, UserError
from matrix.paths import Paths
from tests.matrix.helpers import CELL, SUITE

ASKED = CellOptions(device="cpu")


def test_the_table_says_why_not(axes: Axes, paths: Paths) -> None:
    rows = plan.build([CELL, Cell("2.5", "5.23")], axes, Answers(paths, ASKED, SUITE))
    text = plan.show(rows, "table")
    assert "torch2.5-tf5.23-py3.11-cpu  not        transformers 5.23 needs torch >=2.6" in text
    assert text.endswith("2 cells: 1 to run, 1 cannot be made")


def test_json_and_github_are_json(axes: Axes, paths: Paths) -> None:
    rows = plan.build(axes.tier("smoke"), axes, Answers(paths, ASKED, SUITE))
    told = {"state": "run", "why": "never asked", "current": 0, "answers": 0}
    assert json.loads(plan.show(rows, "json"))[0] == {**CELL.to_json(), **told}
    matrix = json.loads(plan.show(rows, "github"))
    assert matrix["include"][0] == {"torch": "2.5", "cells": 1}
    assert [job["torch"] for job in matrix["include"]] == ["2.5", "2.6", "2.8", "2.9", "2.13", "2.15"]


def test_github_gets_no_empty_and_no_oversized_matrix() -> None:
    with pytest.raises(EmptySelectionError):
        plan.show([Planned(CELL, "because")], "github")
    with pytest.raises(UserError, match="256"):
        plan.show([Planned(Cell(f"2.{minor}", "4.53"), None) for minor in range(257)], "github")
