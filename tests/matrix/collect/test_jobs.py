from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.cells import axes as axes_module
from matrix.cells import selectors
from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.collect.jobs import SETUP, UNKNOWN, expected, split
from matrix.paths import Paths
from matrix.records import parquet
from tests.matrix import factories
from tests.matrix.factories import record

CORE = axes_module.load().tier("core")
SECONDS = st.lists(st.integers(1, 2000), min_size=len(CORE), max_size=len(CORE))


@settings(max_examples=25, deadline=None)
@given(SECONDS, st.integers(1, 30))
def test_each_cell_is_in_one_job_and_its_glob_selects_it(seconds: list[int], count: int) -> None:
    jobs = split(dict(zip(CORE, map(float, seconds), strict=True)), count)
    assert 1 <= len(jobs) <= count
    assert sorted((cell for job in jobs for cell in job.cells), key=lambda cell: cell.order) == CORE
    for job in jobs:
        takes = selectors.glob(job.select)
        assert [cell for cell in CORE if takes(cell) and takes(cell.on("cuda"))] == list(job.cells)


@settings(max_examples=25, deadline=None)
@given(SECONDS, st.integers(2, 30))
def test_no_job_is_much_longer_than_the_mean_or_a_cell_is(seconds: list[int], count: int) -> None:
    taken = dict(zip(CORE, map(float, seconds), strict=True))
    jobs = split(taken, count)
    mean = (sum(seconds) + SETUP * max(count, len({cell.torch for cell in CORE}))) / count
    longest = max(seconds) + SETUP
    assert max(job.seconds for job in jobs) <= 1.5 * mean + longest


def test_core_in_twelve_jobs_is_nearly_equal() -> None:
    jobs = split(dict.fromkeys(CORE, 100.0), 12)
    times = [job.seconds for job in jobs]
    assert max(times) / (sum(times) / len(times)) < 1.15
    # The cells of a torch are together: only the newest, which has half of them, is in several jobs.
    torches = [torch for job in jobs for torch in job.torches]
    assert {torch for torch in torches if torches.count(torch) > 1} == {"2.15"}
    assert all(before.cells[0].order < after.cells[0].order for before, after in pairwise(jobs))


def test_a_name_is_for_people() -> None:
    cells = [Cell("2.15", "4.57"), Cell("2.15", "5.0"), Cell("2.4", "4.44")]
    seconds = dict.fromkeys(cells, 1000.0)
    assert [job.name for job in split(seconds, 3)] == [
        "torch 2.4 with 4.44",
        "torch 2.15 with 4.57",
        "torch 2.15 with 5.0",
    ]
    assert [job.name for job in split(seconds, 2)] == ["torch 2.4 with 4.44", "torch 2.15 with 4.57 to 5.0"]
    assert [job.name for job in split(seconds, 1)] == ["torch 2.4, 2.15"]


def test_pythons_are_told_apart() -> None:
    cells = [Cell("2.15", "5.23", python) for python in ("3.12", "3.13")]
    first, second = split(dict.fromkeys(cells, 100.0), 2)
    assert (first.select, second.select) == ("torch2.15-tf{5.23}-py3.12-*", "torch2.15-tf{5.23}-py3.13-*")


def test_a_cell_takes_what_its_checks_took_when_it_was_published(paths: Paths, axes: Axes) -> None:
    cells = axes.tier("smoke")
    assert set(expected(cells, paths.published).values()) == {UNKNOWN}
    runs = [factories.run(record(), record("export/other"), torch="2.5", transformers="4.53")]
    parquet.write(paths.published, [*runs, factories.run(record(), torch="2.6", transformers="4.48")])
    found = expected(cells, paths.published)
    assert found[Cell("2.5", "4.53")] == pytest.approx(1.0)
    assert found[Cell("2.6", "4.48")] == pytest.approx(0.5)
    assert found[Cell("2.15", "5.23")] == pytest.approx(0.75)
