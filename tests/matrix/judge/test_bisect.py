from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.cells.cell import Cell
from matrix.errors import EmptySelectionError, UserError
from matrix.judge.bisect import bisect, of_run
from matrix.records.lines import Record, Status
from tests.matrix import factories

CHECK = "round-trip/one"


def cells(count: int) -> list[Cell]:
    return [Cell("2.15", f"5.{minor}") for minor in range(count)]


def record(status: Status) -> Record:
    return Record("kvconform", CHECK, "round-trip", status, message=f"says {status}")


@given(st.integers(2, 60), st.data())
def test_the_flip_is_found_with_few_questions(count: int, data: st.DataObject) -> None:
    flip = data.draw(st.integers(1, count - 1))
    asked: list[Cell] = []

    def ask(cell: Cell) -> Record:
        asked.append(cell)
        return record("fail" if int(cell.transformers[2:]) >= flip else "pass")

    (found,) = bisect(cells(count), ask)
    assert (found.before.transformers, found.after.transformers) == (f"5.{flip - 1}", f"5.{flip}")
    assert found.unanswered == ()
    assert len(asked) == len(set(asked)) <= 2 + (count - 1).bit_length()
    assert f"pass until {found.before.id}, fail since {found.after.id}" in str(found)


def test_a_repair_is_a_flip_too() -> None:
    (found,) = bisect(cells(9), lambda cell: record("error" if int(cell.transformers[2:]) < 4 else "pass"))
    assert found.after.transformers == "5.4"
    assert "says error" in str(found) or "says pass" in str(found)


def test_releases_without_an_answer_are_stepped_over_and_told() -> None:
    silent = {"5.0", "5.4", "5.5"}

    def ask(cell: Cell) -> Record | None:
        if cell.transformers in silent:
            return None
        return record("fail" if int(cell.transformers[2:]) >= 5 else "pass")

    (found,) = bisect(cells(9), ask)
    assert (found.before.transformers, found.after.transformers) == ("5.3", "5.6")
    assert [cell.transformers for cell in found.unanswered] == ["5.4", "5.5"]
    assert "no answer between them" in str(found)


def test_ends_that_agree_are_an_error() -> None:
    with pytest.raises(UserError, match="both ends answer pass"):
        bisect(cells(5), lambda _: record("pass"))


def test_a_range_without_answers_is_an_error() -> None:
    with pytest.raises(UserError, match="first releases"):
        bisect(cells(5), lambda _: None)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 40))
def test_a_class_that_is_absent_at_first(absent: int, other: int, same: int) -> None:
    """n/a, then one answer, then another: each border is found, whichever of the parts is empty."""
    statuses: list[Status] = ["na"] * absent + ["fail"] * same + ["pass"] * other
    for ordered, borders in ((statuses, (absent, absent + same)), (statuses[::-1], (other, other + same))):
        found = bisect(cells(len(ordered)), lambda cell: record(ordered[int(cell.transformers[2:])]))  # noqa: B023
        wanted = dict.fromkeys(borders)
        assert [int(flip.after.transformers[2:]) for flip in found] == list(wanted)
        assert all(flip.old.status != flip.new.status for flip in found)


def test_n_a_between_two_answers_is_stepped_over() -> None:
    statuses: list[Status] = ["pass", "pass", "na", "na", "fail"]
    (found,) = bisect(cells(5), lambda cell: record(statuses[int(cell.transformers[2:])]))
    assert (found.before.transformers, found.after.transformers) == ("5.1", "5.4")


def test_a_class_that_is_absent_everywhere() -> None:
    with pytest.raises(UserError, match="both ends answer na"):
        bisect(cells(5), lambda _: record("na"))


def test_answers_come_from_runs() -> None:
    run = factories.run(record("fail"), factories.record("export/x", "na"), factories.record("export/y", "skip"))
    cell = Cell("2.5", "4.53")
    assert of_run(cell, run, "kvconform", CHECK) == record("fail")
    assert of_run(cell, run, "kvconform", "export/x") == factories.record("export/x", "na")
    assert of_run(cell, run, "kvconform", "export/y") is None
    with pytest.raises(EmptySelectionError, match=CHECK):
        of_run(cell, run, "kvconform", "round-trip/on")
    assert of_run(cell, factories.run(unresolved="because"), "kvconform", CHECK) is None
