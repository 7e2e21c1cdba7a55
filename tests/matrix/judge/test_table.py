"""All records at once: the same verdicts as one by one, and a smaller plan is no better result."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.errors import UserError
from matrix.judge.baseline import Baseline, BaselineRow
from matrix.judge.table import judge_table, table_of, table_of_file, with_unplanned
from matrix.judge.verdicts import judge
from matrix.records import parquet
from matrix.records.lines import STATUSES, WRONG, CellRun, Record, Selection
from matrix.records.sources import latest
from matrix.render.grid import results
from tests.matrix.factories import record, run

SUBJECTS = ("kvconform",)
ASKED = ("kvconform", "kvconform with patches", "native")


@st.composite
def runs(draw: st.DrawFn) -> list[CellRun]:
    made = []
    for torch in draw(st.lists(st.sampled_from(["2.5", "2.6", "2.10"]), min_size=1, max_size=3, unique=True)):
        keys = draw(st.lists(st.tuples(st.sampled_from(ASKED), st.sampled_from(["a/1", "a/2", "b/1"])), unique=True))
        records = [record(name, draw(st.sampled_from(STATUSES)), subject) for subject, name in keys]
        selection = Selection(keyword=draw(st.sampled_from([None, None, "x"])))
        made.append(run(*records, torch=torch, complete=draw(st.booleans()), selection=selection, subjects=ASKED))
    return made


ROWS = st.builds(
    BaselineRow,
    check=st.sampled_from(["a/*", "a/1", "b/1", "{a/2,b/*}", "c/1", "onnx/*"]),
    status=st.lists(st.sampled_from(sorted(WRONG)), min_size=1, max_size=3, unique=True).map(tuple),
    reason=st.just("why"),
    fault=st.just("torch"),
    subject=st.sampled_from(ASKED),
    torch=st.sampled_from(["", "<2.6", "==2.10"]),
    patch=st.sampled_from(["", "", "vmap-masks"]),
)


@given(runs(), st.lists(ROWS, max_size=5, unique=True))
def test_the_same_verdicts_as_one_run_at_a_time(made: list[CellRun], rows: list[BaselineRow]) -> None:
    baseline = Baseline(tuple(rows))
    judged = judge_table(table_of(made), baseline)
    used = set()
    for number, each in enumerate(made):
        one_by_one = [verdict for verdict in judge(each, baseline) if verdict.verdict != "ok"]
        assert judged.verdicts(number) == one_by_one
        used |= {verdict.row for verdict in one_by_one if verdict.row}
    assert not used & set(judged.unused)


def test_a_published_file_is_the_same_table(tmp_path: Path) -> None:
    first = run(record("a/1"), record("a/2", "fail", "native", "caf\u00e9"), torch="2.10")
    made = [first, run(record("b/1", "na")), run(torch="2.6", unresolved="no")]
    parquet.write(tmp_path / "records.parquet", made)
    read = table_of_file(tmp_path / "records.parquet")
    assert read is not None
    plain = table_of(latest(parquet.read(tmp_path / "records.parquet")))
    assert read.runs == plain.runs
    assert read.records(range(len(read.frame))) == plain.records(range(len(plain.frame)))
    assert read.bounds.tolist() == plain.bounds.tolist()
    parquet.write(tmp_path / "twice.parquet", [first, first])
    assert table_of_file(tmp_path / "twice.parquet") is None
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "records.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match="cut off"):
        table_of_file(tmp_path / "torn.parquet")


def test_a_row_that_explains_nothing_anywhere_is_unused() -> None:
    row = BaselineRow("a/1", ("fail",), "why", "torch")
    assert judge_table(table_of([run(record("a/1", "na"))]), Baseline((row,))).unused == (row,)
    assert judge_table(table_of([run(record("a/1", "fail"))]), Baseline((row,))).unused == ()


def with_missing(made: list[CellRun]) -> list[list[Record]]:
    table = with_unplanned(table_of(made))
    bounds = table.bounds.tolist()
    return [table.records(range(first, last)) for first, last in itertools.pairwise(bounds)]


def test_a_cell_that_lost_checks_in_collection_gets_no_tick() -> None:
    whole = run(record("a/1"), record("b/1"), subjects=SUBJECTS)
    lost = run(record("a/1"), subjects=SUBJECTS, torch="2.6")
    states = {place.cell.torch: place.state("kvconform") for place in results([whole, lost], Baseline()).places}
    assert states == {"2.5": "pass", "2.6": "missing"}
    (_, missing) = with_missing([whole, lost])[1]
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
    assert with_missing([small, *others]) == [list(each.records) for each in [small, *others]]


def test_each_subject_is_asked_the_whole_plan() -> None:
    one = run(record("a/1"), record("a/2"), record("a/1", subject="native"))
    assert [(each.subject, each.id, each.status) for each in with_missing([one])[0]][-1] == (
        "native",
        "a/2",
        "missing",
    )
