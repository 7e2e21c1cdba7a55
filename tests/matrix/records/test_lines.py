"""The lines of a record: what is written reads back, and what is not of the schema is refused by key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from matrix.records.lines import (
    SCHEMA,
    STATUSES,
    CellRun,
    Environment,
    MalformedError,
    Record,
    Selection,
    dump,
    take,
)
from tests.matrix.factories import environment, record, run
from tests.matrix.strategies import ENVIRONMENTS, RECORDS


@given(ENVIRONMENTS)
def test_environment_round_trips(environment: Environment) -> None:
    assert Environment.from_json(json.loads(json.dumps(environment.to_json()))) == environment


@given(RECORDS)
def test_record_round_trips(record: Record) -> None:
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    ("value", "kinds", "said"),
    [
        (True, (int,), '"key" is true, expected int'),
        (1, (str, type(None)), '"key" is 1, expected str or null'),
        ([], (dict,), '"key" is [], expected dict'),
    ],
)
def test_a_value_of_another_type_is_refused(value: Any, kinds: tuple[type, ...], said: str) -> None:
    with pytest.raises(MalformedError) as caught:
        take({"key": value}, "key", *kinds)
    assert str(caught.value) == said
    with pytest.raises(MalformedError, match='"key" is not there'):
        take({}, "key", *kinds)


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "missing"])
def test_every_status_but_missing_can_be_written(status: Any) -> None:
    one = record(status=status)
    assert Record.from_json(one.to_json()).status == status


def test_missing_is_never_written() -> None:
    with pytest.raises(MalformedError, match='"status" is "missing"'):
        Record.from_json(record(status="missing").to_json())
    kinds = [line["kind"] for line in run(record(), record("a/b", "missing", message="started")).to_lines()]
    assert kinds == ["cell", "planned", "check", "started", "end"]


def test_a_header_of_another_schema_is_refused() -> None:
    with pytest.raises(MalformedError, match=f"schema {SCHEMA + 1} is not the schema {SCHEMA}"):
        Environment.from_json(environment().to_json() | {"schema": SCHEMA + 1})


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        (Selection(), ""),
        (Selection("a or b"), "-k 'a or b'"),
        (Selection(None, ("export", "archive")), "--category export --category archive"),
        (Selection("x", ("export",)), "--category export -k 'x'"),
    ],
)
def test_a_selection_reads_as_its_options(selection: Selection, text: str) -> None:
    assert str(selection) == text
    assert bool(selection) == bool(text)
    assert Selection.from_json(selection.to_json()) == selection


@pytest.mark.parametrize(
    ("made", "whole"),
    [
        (run(record()), True),
        (run(record(), complete=False), False),
        (run(record(), selection=Selection("x")), False),
        (run(unresolved="no such pair"), False),
    ],
)
def test_only_a_run_that_asked_everything_to_its_end_is_whole(made: CellRun, *, whole: bool) -> None:
    assert made.whole == whole


def test_what_has_no_answer_is_not_counted() -> None:
    made = run(record(), record("a/b", "missing"), record("a/c", "na"))
    assert made.counts() == {"pass": 1, "na": 1}
    assert json.loads(dump(made).splitlines()[-1])["counts"] == made.counts()
