"""Comparing records: what changed, what cannot make up its mind, and what a partial run may not claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.errors import ExitCode
from matrix.judge.baseline import Baseline, BaselineRow
from matrix.judge.compare import MOST_CAUSES, Change, compare, compare_runs, kind_of
from matrix.judge.flaky import Flake, flakes
from matrix.records import parquet
from matrix.records.lines import STATUSES, Selection, Status
from tests.matrix import factories
from tests.matrix.factories import record, run

OTHER = "e" * 64


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("pass", "fail", "regressed"),
        ("na", "crash", "newly asked"),
        ("fail", "pass", "fixed"),
        ("fail", "crash", "changed"),
        ("pass", "missing", "regressed"),
        ("pass", "skip", "removed"),
        ("fail", "na", "removed"),
        ("pass", None, "removed"),
        ("na", "pass", "newly asked"),
        (None, "pass", "newly asked"),
        (None, "fail", "newly asked"),
        ("na", "skip", None),
        ("na", None, None),
    ],
)
def test_kinds(old: Status | None, new: Status | None, kind: str | None) -> None:
    assert kind_of(old, new) == kind


@pytest.mark.parametrize("old", STATUSES)
@pytest.mark.parametrize("new", STATUSES)
def test_the_same_question_with_another_answer_is_flaky(old: Status, new: Status) -> None:
    kind = kind_of(old, new, same=True)
    if old == new or {old, new} == {"na", "skip"}:
        assert kind is None
    else:
        assert (kind == "flaky") is ("missing" not in (old, new))


def test_a_regression_of_ours_fails_and_one_of_others_does_not() -> None:
    for subject, code in (("kvconform", ExitCode.REGRESSION), ("native", ExitCode.OK)):
        found = compare_runs(
            [run(record(subject=subject))], [run(record(subject=subject, status="fail"), digest=OTHER)]
        )
        assert [change.kind for change in found.changes] == ["regressed"]
        assert found.exit_code == code


def test_the_same_digest_is_flaky_and_fails() -> None:
    found = compare_runs([run(record(subject="native"))], [run(record(subject="native", status="fail"))])
    assert [change.kind for change in found.changes] == ["flaky"]
    assert found.exit_code == ExitCode.REGRESSION
    assert "flaky       torch2.5-tf4.53-py3.11-cpu native export/dynamic[strict]: pass -> fail" in found.render()


@pytest.mark.parametrize("partial", [{"selection": Selection(keyword="x")}, {"complete": False}])
def test_what_a_partial_run_lacks_is_no_difference(partial: dict[str, object]) -> None:
    whole, partly = run(record("a/one"), record("a/two")), run(record("a/one"), **partial)
    assert compare_runs([whole], [partly]).changes == ()
    assert compare_runs([partly], [whole]).changes == ()


def test_cells_come_go_and_are_lost() -> None:
    old = [run(record()), run(record(), torch="2.6"), run(torch="2.8", unresolved="no")]
    new = [run(unresolved="no"), run(torch="2.8", unresolved="no, still"), run(record(), torch="2.9")]
    found = compare_runs(old, new)
    assert [(change.kind, change.cell[:8]) for change in found.changes] == [
        ("lost", "torch2.5"),
        ("added", "torch2.9"),
        ("removed", "torch2.6"),
    ]
    assert found.exit_code == ExitCode.REGRESSION


def test_a_page_groups_by_cause_and_cuts() -> None:
    """Forty checks with two causes, and thirty causes of another kind: some lines, not seventy."""
    names = [f"a/x[{number}]" for number in range(40)]
    old = [run(*(record(name) for name in names), *(record(f"b/{number}", "na") for number in range(30)))]
    new = [
        run(
            *(
                record(name, "fail", message=f"{'odd' if at % 2 else 'even'} [cache {at}]")
                for at, name in enumerate(names)
            ),
            *(record(f"b/{number}", "fail", message=f"reason {'i' * number}") for number in range(30)),
            digest=OTHER,
        )
    ]
    found = compare_runs(old, new)
    lines = found.page().splitlines()
    cell = "torch2.5-tf4.53-py3.11-cpu"
    assert lines[0] == f"regressed   kvconform: a/x[0] and 19 more, pass -> fail, in {cell}: even [cache 0]"
    assert lines[-2:] == [
        "newly asked and 24 more causes, 24 differences: --all",
        "40 regressed, 30 newly asked",
    ]
    assert len(lines) == 2 + MOST_CAUSES + 2
    assert len(found.render().splitlines()) == 71


def test_a_known_failure_is_one_cause() -> None:
    row = BaselineRow("a/*", ("fail",), "Masks.", "torch", link="docs/known-failures/vmap-masks.md")
    old = [run(record("a/one"), record("a/two"))]
    new = [run(record("a/one", "fail", message="x"), record("a/two", "fail", message="y"), digest=OTHER)]
    found = compare_runs(old, new, Baseline((row,)))
    assert found.page().splitlines()[0].endswith("known, vmap-masks")
    assert len(found.page().splitlines()) == 2


def test_changes_round_trip() -> None:
    change = Change("fixed", "cell", "kvconform", "a/one", "fail", "pass")
    assert Change.from_json(change.to_json()) == change


def test_flakes_among_many_runs() -> None:
    runs = [run(record()), run(record(status="fail")), run(record("a/one", "missing")), run(record("a/one"))]
    assert flakes(runs) == [
        Flake("torch2.5-tf4.53-py3.11-cpu", "kvconform", "export/dynamic[strict]", ("fail", "pass"))
    ]
    assert flakes([run(record()), run(record(status="fail"), digest=OTHER)]) == []


def test_folders_and_files(tmp_path: Path) -> None:
    old = factories.write(tmp_path / "old", run(record()))
    new = tmp_path / "new.parquet"
    parquet.write(new, [run(record(status="fail"), digest=OTHER)])
    assert [change.kind for change in compare(old, new).changes] == ["regressed"]
    assert compare(old, old).render() == "no difference"
