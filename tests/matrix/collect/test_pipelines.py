from __future__ import annotations

import json
import shlex

import pytest

from matrix.__main__ import parser
from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.selection import select
from matrix.collect.jobs import Job, split
from matrix.collect.pipelines import buildkite, github
from matrix.errors import EmptySelectionError, UserError


def test_github_gets_a_matrix_of_jobs() -> None:
    jobs = split({Cell("2.5", "4.53"): 100.0, Cell("2.6", "4.48"): 300.0}, 2)
    assert json.loads(github(jobs)) == {
        "include": [
            {
                "name": "torch 2.5 with 4.53",
                "slug": "job1",
                "cells": 1,
                "minutes": 3,
                "select": "torch2.5-tf{4.53}-py3.11-*",
            },
            {
                "name": "torch 2.6 with 4.48",
                "slug": "job2",
                "cells": 1,
                "minutes": 6,
                "select": "torch2.6-tf{4.48}-py3.11-*",
            },
        ]
    }


def test_no_format_takes_an_empty_plan_and_github_no_oversized_one() -> None:
    with pytest.raises(EmptySelectionError):
        github([])
    with pytest.raises(EmptySelectionError):
        buildkite([], {})
    with pytest.raises(UserError, match="256"):
        github([Job((Cell(f"2.{minor}", "4.53"),), 1.0) for minor in range(257)])


@pytest.mark.parametrize("device", [{}, {"device": "cuda"}])
def test_the_commands_of_buildkite_run_each_cell_once(axes: Axes, device: dict[str, str]) -> None:
    cells = axes.tier("core")
    pipeline = json.loads(buildkite(split(dict.fromkeys(cells, 100.0), 12), {"tier": "core", **device}))
    *steps, wait, table = pipeline["steps"]
    assert wait == {"wait": None, "continue_on_failure": True}
    assert table["key"] == "table"
    ran = []
    for step in steps:
        found = parser().parse_args(shlex.split(step["commands"][-1])[3:])
        ran += select(found, axes, tier="smoke")
        assert step.get("agents") == ({"queue": "gpu"} if device else None)
    expected = [cell.on(device.get("device", "cpu")) for cell in cells]
    assert sorted(ran, key=lambda cell: cell.order) == expected
