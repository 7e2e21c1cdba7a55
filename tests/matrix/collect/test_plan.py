from __future__ import annotations

import argparse
import json

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import plan
from matrix.collect.plan import Planned
from matrix.collect.session import run_cell
from matrix.errors import EmptySelectionError, UserError
from matrix.paths import Paths
from tests.matrix.helpers import CELL, fake_check

ASKED = CellOptions(device="cpu")


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    plan.add_selection_options(parser)
    return parser.parse_args(argv)


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        ((), 11 * 34),
        (("--tier", "smoke"), 6),
        (("--tier", "smoke", "--torch", "2.5..2.8"), 3),
        (("--torch", "2.5"), 34),
        (("--torch", "2.4", "--transformers", "4.44,4.45"), 2),
        (("--torch", "2.5.0", "--transformers", "4.53.1"), 1),
        (("--select", "torch2.{5,6}-tf4.53-*"), 2),
        (("--select", "torch2.5-tf4.53-*", "--select", "torch2.6-tf4.48-*"), 2),
        (("--torch", "nightly", "--transformers", "main"), 1),
    ],
)
def test_selections(axes: Axes, argv: tuple[str, ...], count: int) -> None:
    assert len(plan.select(parse(*argv), axes)) == count


def test_a_command_may_have_a_tier_of_its_own(axes: Axes) -> None:
    assert len(plan.select(parse(), axes, tier="smoke")) == 6
    assert len(plan.select(parse("--torch", "2.5"), axes, tier="smoke")) == 34


def test_an_empty_selection_is_an_error(axes: Axes) -> None:
    with pytest.raises(EmptySelectionError, match="near misses"):
        plan.select(parse("--tier", "smoke", "--torch", "2.14"), axes)


def test_a_record_counts_only_for_the_same_suite_and_request(axes: Axes, paths: Paths) -> None:
    run_cell(CELL, ASKED, axes, paths, command=fake_check("pass"))
    assert plan.is_recorded(CELL, paths, ASKED, "DIGEST")
    assert not plan.is_recorded(CELL, paths, ASKED, "another")
    assert not plan.is_recorded(CELL, paths, CellOptions(categories=("export",)), "DIGEST")
    assert not plan.is_recorded(Cell("2.6", "4.48"), paths, ASKED, "DIGEST")
    (paths.records / f"{CELL.id}.jsonl").write_text("{", encoding="utf-8")
    assert not plan.is_recorded(CELL, paths, ASKED, "DIGEST")


def test_an_incomplete_record_is_run_again(axes: Axes, paths: Paths) -> None:
    run_cell(CELL, ASKED, axes, paths, command=fake_check("die"))
    assert not plan.is_recorded(CELL, paths, ASKED, "DIGEST")


def test_the_table_says_why_not(axes: Axes, paths: Paths) -> None:
    rows = plan.build([CELL, Cell("2.5", "5.23")], axes, paths, ASKED, "DIGEST")
    text = plan.show(rows, "table")
    assert "torch2.5-tf5.23-py3.11-cpu  not       transformers 5.23 needs torch >=2.6" in text
    assert text.endswith("2 cells: 1 to run, 1 cannot be made")


def test_json_and_github_are_json(axes: Axes, paths: Paths) -> None:
    rows = plan.build(axes.tier("smoke"), axes, paths, ASKED, "DIGEST")
    assert json.loads(plan.show(rows, "json"))[0] == {**CELL.to_json(), "state": "run", "why": ""}
    matrix = json.loads(plan.show(rows, "github"))
    assert matrix["include"][0] == {"torch": "2.5", "cells": 1}
    assert [job["torch"] for job in matrix["include"]] == ["2.5", "2.6", "2.8", "2.9", "2.13", "2.15"]


def test_github_gets_no_empty_and_no_oversized_matrix() -> None:
    with pytest.raises(EmptySelectionError):
        plan.show([Planned(CELL, "because")], "github")
    with pytest.raises(UserError, match="256"):
        plan.show([Planned(Cell(f"2.{minor}", "4.53"), None) for minor in range(257)], "github")
