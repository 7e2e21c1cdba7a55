"""Answers to opt-in categories: one run a cell, of each category the newest."""

from __future__ import annotations

import pytest

from matrix.records.lines import CellRun, Selection
from matrix.records.optin import is_opt_in, joined, split
from tests.matrix.factories import record, run

EARLIER, LATER = "2026-11-20T10:00:00Z", "2026-11-22T10:00:00Z"


def asked(*names: str, subject: str = "kvconform", started: str = EARLIER, **about: object) -> CellRun:
    categories = tuple(dict.fromkeys(name.partition("/")[0] for name in names))
    records = [record(name, subject=subject) for name in names]
    return run(*records, started=started, selection=Selection(categories=categories), subjects=(subject,), **about)


@pytest.mark.parametrize(
    ("selection", "opt_in"),
    [
        (Selection(), False),
        (Selection(categories=("onnx",)), True),
        (Selection(categories=("onnx", "architectures")), True),
        (Selection(categories=("onnx", "export")), False),
        (Selection(keyword="x", categories=("onnx",)), False),
    ],
)
def test_which_runs_are_of_opt_in_categories(selection: Selection, opt_in: bool) -> None:
    assert is_opt_in(run(record(), selection=selection)) is opt_in
    assert [len(part) for part in split([run(record(), selection=selection)])] == [1 - opt_in, opt_in]


def test_of_each_category_the_newest_answers_stay() -> None:
    old, new = asked("onnx/a", "onnx/b", "aoti/a"), asked("onnx/a", started=LATER)
    (found,) = joined([new, old])
    assert [(each.id, each.asked) for each in found.records] == [("aoti/a", EARLIER), ("onnx/a", "")]
    assert found.environment.selection == Selection(categories=("aoti", "onnx"))
    assert found.environment.started == LATER


def test_of_each_subject_too() -> None:
    ours, native = asked("onnx/a"), asked("onnx/a", subject="native", started=LATER)
    again = asked("onnx/a", started="2026-11-23T10:00:00Z")
    (found,) = joined([ours, native, again])
    assert [(each.subject, each.asked) for each in found.records] == [("native", LATER), ("kvconform", "")]
    assert found.environment.subjects == ("kvconform", "native")


def test_what_is_not_complete_or_was_not_made_counts_for_nothing() -> None:
    whole = asked("onnx/a")
    broken = asked("onnx/a", started=LATER, complete=False)
    unmade = run(started=LATER, unresolved="no release", selection=Selection(categories=("onnx",)))
    assert joined([whole, broken, unmade]) == [whole]
