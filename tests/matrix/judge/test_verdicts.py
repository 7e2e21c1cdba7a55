"""Verdicts: strict in both directions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from matrix.errors import ExitCode
from matrix.judge.table import judge_table, table_of
from matrix.judge.verdicts import Baseline, BaselineRow, exit_code, judge, policy
from matrix.records.lines import NOT_ASKED, STATUSES, WRONG, Selection, Status
from tests.matrix.factories import record, run

ROW = BaselineRow("export/*", ("fail",), "why", "torch")


@pytest.mark.parametrize("status", STATUSES)
def test_only_ours_regresses_and_nothing_wrong_is_ok(status: Status) -> None:
    ours, other = policy(record(status=status), None), policy(record(status=status, subject="native"), None)
    assert (ours, other) == (("regressed", "finding") if status in WRONG else ("ok", "ok"))


@pytest.mark.parametrize("status", STATUSES)
def test_a_row_is_strict(status: Status) -> None:
    expected = {"pass": "fixed", "fail": "known"} | dict.fromkeys(NOT_ASKED, "ok")
    assert policy(record(status=status), ROW) == expected.get(status, "regressed")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["pass", "na", "skip"], ExitCode.OK),
        (["pass", "missing"], ExitCode.REGRESSION),
        (["crash"], ExitCode.REGRESSION),
        ([], ExitCode.EMPTY),
    ],
)
def test_exit_codes(statuses: list[Status], code: ExitCode) -> None:
    records = [record(f"archive/{number}", status) for number, status in enumerate(statuses)]
    assert exit_code(judge(run(*records), Baseline())) == code


def test_findings_of_other_subjects_fail_no_run() -> None:
    assert exit_code(judge(run(record(status="crash", subject="native")), Baseline())) == ExitCode.OK


def test_a_known_failure_keeps_its_row() -> None:
    (verdict,) = judge(run(record(status="fail")), Baseline((ROW,)))
    assert (verdict.verdict, verdict.row) == ("known", ROW)


def test_of_two_rows_the_one_that_names_the_status_explains() -> None:
    crash = BaselineRow("export/*", ("crash",), "why", "torch")
    (verdict,) = judge(run(record(status="crash")), Baseline((ROW, crash)))
    assert (verdict.verdict, verdict.row) == ("known", crash)


def test_a_row_that_names_nothing_in_a_covered_cell_is_stale() -> None:
    verdicts = judge(run(record("archive/load")), Baseline((ROW,)))
    assert [verdict.verdict for verdict in verdicts] == ["ok", "fixed"]
    assert exit_code(verdicts) == ExitCode.REGRESSION


@pytest.mark.parametrize(
    "partial",
    [
        {"selection": Selection(keyword="load")},
        {"selection": Selection(categories=("archive",))},
        {"complete": False},
        {"subjects": ("native",)},
    ],
)
def test_what_a_partial_run_lacks_makes_no_row_stale(partial: dict[str, object]) -> None:
    partly = run(record("archive/load"), **partial)
    assert exit_code(judge(partly, Baseline((ROW,)))) == ExitCode.OK
    assert judge_table(table_of([partly]), Baseline((ROW,))).unused == ()


def test_a_row_for_another_cell_or_device_is_silent() -> None:
    elsewhere = BaselineRow("nothing", ("fail",), "why", "torch", torch=">=2.9")
    gpu = BaselineRow("nothing", ("fail",), "why", "torch", device="cuda")
    assert exit_code(judge(run(record()), Baseline((elsewhere, gpu)))) == ExitCode.OK


def test_a_row_speaks_about_its_subject_alone() -> None:
    both = run(record(status="fail"), record(status="fail", subject="native"))
    assert [verdict.verdict for verdict in judge(both, Baseline((ROW,)))] == ["known", "finding"]


PATCHED = "kvconform with patches"


@pytest.mark.parametrize("status", STATUSES)
def test_a_row_of_ours_is_about_ours_with_patches_which_may_pass(status: Status) -> None:
    (verdict,) = judge(run(record(status=status, subject=PATCHED), selection=Selection(keyword="x")), Baseline((ROW,)))
    expected = {"pass": "ok", "fail": "known"} | dict.fromkeys(NOT_ASKED, "ok")
    assert verdict.verdict == expected.get(status, "regressed")


@pytest.mark.parametrize("status", STATUSES)
def test_what_a_patch_heals_must_pass_with_patches(status: Status) -> None:
    healed = replace(ROW, patch="vmap-masks")
    both = run(record(status="fail"), record(status=status, subject=PATCHED))
    ours, patched = judge(both, Baseline((healed,)))
    assert ours.verdict == "known"
    assert patched.verdict == ("regressed" if status in WRONG else "ok")


def test_a_row_whose_checks_are_not_asked_anywhere_is_never_used() -> None:
    runs = [run(record(status="na")), run(record(status="skip"), torch="2.6")]
    assert exit_code(judge(runs[0], Baseline((ROW,)))) == ExitCode.OK
    assert judge_table(table_of(runs), Baseline((ROW,))).unused == (ROW,)
    more = table_of([*runs, run(record(status="fail"), torch="2.8")])
    assert judge_table(more, Baseline((ROW,))).unused == ()
