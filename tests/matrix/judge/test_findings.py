"""Causes: what is told once, and what may not be thrown together."""

from __future__ import annotations

from matrix.judge.findings import findings, some
from matrix.judge.verdicts import Baseline, BaselineRow, judge
from tests.matrix.factories import record, run


def test_the_same_message_about_another_cache_is_the_same_cause() -> None:
    one = run(
        record("a/1", "fail", message="length is 3, expected 9 [DynamicCache]"),
        record("a/2", "fail", message="length is 3, expected 9 [StaticCache, window 4]"),
        record("a/3", "fail", message="length is 0, expected 9 [DynamicCache]"),
        record("a/4", "error", message="length is 3, expected 9 [DynamicCache]"),
        record("a/5", "fail", "native", "length is 3, expected 9 [DynamicCache]"),
        record("a/6"),
    )
    assert [cause.ids for cause in findings(judge(one, Baseline()))] == [["a/1", "a/2"], ["a/3"], ["a/4"], ["a/5"]]


def test_known_and_unknown_are_never_one_cause() -> None:
    row = BaselineRow("a/1", ("fail",), "why", "torch")
    one = run(record("a/1", "fail", message="same"), record("a/2", "fail", message="same"))
    causes = findings(judge(one, Baseline((row,))))
    assert [(cause.label, cause.ids, bool(cause.reproduce)) for cause in causes] == [
        ("known, fail", ["a/1"], False),
        ("fail", ["a/2"], True),
    ]


def test_some() -> None:
    assert some(["a", "b"], 2) == "a, b"
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"
