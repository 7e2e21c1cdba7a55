from __future__ import annotations

import dataclasses

import pytest

from matrix.records.lines import CellRun, Selection
from matrix.records.publishing import merge, merge_opt_in
from tests.matrix.factories import record, run

EARLIER, LATER = "2026-11-20T10:00:00Z", "2026-11-22T10:00:00Z"
OLD = run(record(), started=EARLIER)


def test_a_complete_run_takes_the_place_of_an_earlier_one() -> None:
    new, other = run(record(status="fail"), started=LATER), run(record(), torch="2.6", transformers="4.48")
    merged = merge([OLD], [other, new])
    assert merged.runs == (new, other)
    assert set(merged.taken) == {new.cell, other.cell}
    assert merged.left == {}


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (run(record(), started=LATER, complete=False), "did not reach its end"),
        (run(record(), started=LATER, selection=Selection(categories=("export",))), "only --category export was asked"),
        (run(record(), started=LATER, subjects=("native",)), "only native was asked"),
        (run(started=LATER, unresolved="no such pair"), "the published answer has 1 checks"),
        (OLD, "published already"),
        (dataclasses.replace(OLD, records=(record(status="fail"),)), "the published answer is newer"),
    ],
)
def test_what_is_less_than_the_published_run_is_left(own: CellRun, why: str) -> None:
    merged = merge([OLD], [own])
    assert merged.runs == (OLD,)
    assert merged.taken == ()
    assert why in merged.left[own.cell]


def test_that_no_environment_can_be_made_is_published_where_nothing_is() -> None:
    unresolved = run(unresolved="no such pair", subjects=())
    assert merge([], [unresolved]).runs == (unresolved,)


def test_more_subjects_than_the_usual_ones_are_welcome() -> None:
    new = run(record(), started=LATER, subjects=("kvconform", "kvconform with patches", "native", "exporter"))
    assert merge([OLD], [new]).runs == (new,)


def onnx(started: str = EARLIER, subject: str = "kvconform", **about: object) -> CellRun:
    asked = record("onnx/a", subject=subject)
    return run(asked, started=started, selection=Selection(categories=("onnx",)), **about)


def test_answers_to_an_opt_in_category_are_taken_over_once() -> None:
    merged = merge_opt_in([], [onnx()])
    assert (merged.runs, merged.taken) == ((onnx(),), (f"{OLD.cell} --category onnx",))
    again = merge_opt_in(merged.runs, [onnx()])
    assert (again.runs, again.taken) == (merged.runs, ())
    assert "published already" in again.left[OLD.cell]
    assert merge_opt_in(merged.runs, [onnx(LATER)]).runs == (onnx(LATER),)


def test_one_subject_of_an_opt_in_category_may_be_asked_at_a_time() -> None:
    native = onnx(LATER, "native", subjects=("native",))
    merged = merge_opt_in([onnx()], [native])
    assert merged.taken == (f"{OLD.cell} --category onnx",)
    assert merge_opt_in(merged.runs, [native]).taken == ()


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (onnx(complete=False), "did not reach its end"),
        (onnx(subjects=("kvconform", "mine:context")), "subjects that only this run has: kvconform, mine:context"),
        (run(unresolved="none", selection=Selection(categories=("onnx",))), "no environment"),
    ],
)
def test_what_cannot_stand_for_an_opt_in_category_is_left(own: CellRun, why: str) -> None:
    merged = merge_opt_in([], [own])
    assert merged.runs == ()
    assert why in merged.left[own.cell]
