"""A smaller plan is no better result."""

from __future__ import annotations

from matrix.judge.baseline import Baseline
from matrix.judge.unplanned import with_unplanned
from matrix.records.lines import Selection
from matrix.render.grid import results
from tests.matrix.factories import record, run

SUBJECTS = ("kvconform",)


def test_a_cell_that_lost_checks_in_collection_gets_no_tick() -> None:
    whole = run(record("a/1"), record("b/1"), subjects=SUBJECTS)
    lost = run(record("a/1"), subjects=SUBJECTS, torch="2.6")
    states = {place.cell.torch: place.state("kvconform") for place in results([whole, lost], Baseline()).places}
    assert states == {"2.5": "pass", "2.6": "missing"}
    (_, missing) = with_unplanned([whole, lost])[1].records
    assert (missing.id, missing.category, missing.status) == ("b/1", "b", "missing")


def test_other_suites_and_partial_runs_are_no_measure() -> None:
    small = run(record("a/1"), subjects=SUBJECTS)
    others = [
        run(record("b/1"), subjects=SUBJECTS, digest="e" * 64, torch="2.6"),
        run(record("b/1"), subjects=SUBJECTS, digest=None, torch="2.8"),
        run(record("b/1"), subjects=SUBJECTS, selection=Selection(keyword="b"), torch="2.9"),
        run(record("b/1"), subjects=SUBJECTS, complete=False, torch="2.10"),
        run(unresolved="no", torch="2.11"),
    ]
    assert with_unplanned([small, *others]) == [small, *others]


def test_each_subject_is_asked_the_whole_plan() -> None:
    one = run(record("a/1"), record("a/2"), record("a/1", subject="native"))
    assert [(each.subject, each.id, each.status) for each in with_unplanned([one])[0].records][-1] == (
        "native",
        "a/2",
        "missing",
    )
