"""Counts and states: a tick only where every check that was asked passes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.judge.aggregate import count
from matrix.judge.baseline import Baseline, BaselineRow
from matrix.judge.table import judge_table, table_of
from matrix.judge.tally import Tally, state_of
from matrix.judge.verdicts import judge
from matrix.records.lines import STATUSES, WRONG, Selection, Status
from matrix.render.grid import results
from matrix.render.summary import tallies
from tests.matrix import factories
from tests.matrix.factories import record, run

WHOLE = run(record())


def tally(known: int = 0, **counts: int) -> Tally:
    explained = tuple(known if name == "fail" else 0 for name in STATUSES)
    return Tally(tuple(counts.get(name, 0) for name in STATUSES), explained)


@pytest.mark.parametrize(
    ("counted", "state"),
    [
        (tally(**{"pass": 3}), "pass"),
        (tally(**{"pass": 3}, na=2, skip=1), "pass"),
        (tally(na=2), "na"),
        (tally(na=2, skip=1), "na"),
        (tally(skip=1), "skip"),
        (tally(), "never"),
        (tally(**{"pass": 3}, fail=1), "fail"),
        (tally(**{"pass": 3}, fail=1, known=1), "known"),
        (tally(**{"pass": 3}, fail=2, known=1), "fail"),
        (tally(**{"pass": 3}, fail=1, known=1, crash=1), "crash"),
        (tally(fail=1, error=1), "error"),
        (tally(error=1, missing=1), "missing"),
        (tally(missing=1, timeout=1), "timeout"),
        (tally(timeout=1, crash=1), "crash"),
    ],
)
def test_states_of_a_whole_run(counted: Tally, state: str) -> None:
    assert state_of(WHOLE, counted) == state


@given(
    st.lists(st.integers(0, 3), min_size=len(STATUSES), max_size=len(STATUSES)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_tick_means_that_everything_asked_passed_in_a_whole_run(
    counts: list[int], complete: bool, filtered: bool, resolved: bool
) -> None:
    about = run(
        complete=complete,
        selection=Selection(keyword="x" if filtered else None),
        unresolved=None if resolved else "reason",
    )
    counted = Tally(tuple(counts))
    wrong = sum(counted[status] for status in WRONG)
    ticked = complete and not filtered and resolved and counted["pass"] > 0 and wrong == 0
    assert (state_of(about, counted) == "pass") is ticked


@pytest.mark.parametrize(
    ("about", "counted", "state"),
    [
        (None, tally(**{"pass": 1}), "never"),
        (run(unresolved="no"), tally(), "unresolved"),
        (run(complete=False), tally(**{"pass": 1}), "partial"),
        (run(complete=False), tally(**{"pass": 1}, missing=1), "missing"),
        (run(selection=Selection(keyword="x")), tally(**{"pass": 1}), "partial"),
        (run(selection=Selection(keyword="x")), tally(**{"pass": 1}, fail=1), "fail"),
        (run(selection=Selection(keyword="x")), tally(fail=1, known=1), "partial"),
    ],
)
def test_states_of_other_runs(about: object, counted: Tally, state: str) -> None:
    assert state_of(about, counted) == state


STATUS = st.sampled_from(STATUSES)


@given(st.lists(st.tuples(st.sampled_from(["kvconform", "native"]), st.sampled_from("abc"), STATUS), max_size=30))
def test_pandas_counts_as_a_loop_does(answers: list[tuple[str, str, Status]]) -> None:
    """The grid counts with category codes, the terminal with a loop: they are each other's oracle."""
    records = [
        record(f"{category}/{number}", status, subject) for number, (subject, category, status) in enumerate(answers)
    ]
    baseline = Baseline((BaselineRow("a/*", ("fail", "crash"), "why", "torch"),))
    one = run(*records)
    looped = {key: each for key, each in tallies(one, judge(one, baseline)).items() if key[1] != "all"}
    counted = judge_table(table_of([one]), baseline).tallies()
    assert counted.get(one.cell, {}) == looped


def test_releases_sort_as_versions_and_every_place_is_there() -> None:
    pairs = [("2.10", "5.5"), ("2.9", "5.23"), ("2.5", "4.53"), ("nightly", "main")]
    (grid,) = results([factories.cell_run(*pair) for pair in pairs], Baseline()).grids
    assert grid.torches == ("nightly", "2.10", "2.9", "2.5")
    assert grid.transformers == ("main", "5.23", "5.5", "4.53")
    assert grid.at("2.5", "5.5").state("kvconform") == "never"


def test_every_row_is_counted_in_one_place() -> None:
    rows, rng = 200_000, np.random.default_rng(0)
    sizes = {"cell": 500, "subject": 2, "category": 10}
    data = {
        name: pd.Categorical.from_codes(rng.integers(0, size, rows), [f"{name}-{number:03}" for number in range(size)])
        for name, size in sizes.items()
    }
    data["status"] = pd.Categorical.from_codes(rng.integers(0, 8, rows), list(STATUSES))
    frame = pd.DataFrame(data).assign(explained=rng.random(rows) < 0.01)
    counted = count(frame)
    assert sum(sum(each.counts) for each in counted.values()) == rows
    assert len(counted) == 10_000
