from __future__ import annotations

import dataclasses

import pytest

from matrix.judge.flaky import flakes, same_question
from matrix.records.lines import CellRun
from tests.matrix.factories import record, run

PASSED, FAILED = run(record()), run(record(status="fail"))


def about(made: CellRun, **more: object) -> CellRun:
    """The run with another environment."""
    return dataclasses.replace(made, environment=dataclasses.replace(made.environment, **more))  # type: ignore[arg-type]


def test_two_answers_to_one_question_are_flaky() -> None:
    (flake,) = flakes([PASSED, FAILED, PASSED])
    assert (flake.cell, flake.subject, flake.id) == (PASSED.cell, "kvconform", record().id)
    assert flake.statuses == ("fail", "pass")


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "e" * 64},
        {"packages": {"torch": "2.5.0"}},
        {"python": "3.11.8"},
        {"platform": "Darwin-arm64"},
        {"gpu": "NVIDIA H100"},
        {"cell": "torch2.6-tf4.53-py3.11-cpu"},
    ],
)
def test_another_environment_is_another_question(other: dict[str, object]) -> None:
    assert not same_question(PASSED, about(FAILED, **other))
    assert flakes([PASSED, about(FAILED, **other)]) == []


def test_another_commit_with_the_same_suite_is_the_same_question() -> None:
    assert same_question(PASSED, about(FAILED, commit="fedcba9876543210", started="2026-11-22T10:00:00Z"))


def test_a_run_without_a_digest_is_like_no_other() -> None:
    unknown = about(FAILED, digest=None)
    assert not same_question(unknown, unknown)
    assert flakes([about(PASSED, digest=None), unknown]) == []


def test_what_an_interrupted_run_did_not_reach_is_no_answer() -> None:
    assert flakes([PASSED, run(record(status="missing"), complete=False)]) == []
