from __future__ import annotations

import dataclasses

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect.answers import Answer, Answers
from matrix.commands.cell import run_cell
from matrix.errors import UserError
from matrix.paths import Paths
from matrix.records import parquet
from matrix.records.lines import CellRun
from tests.matrix import factories
from tests.matrix.helpers import CELL, fake_check

ASKED = CellOptions(device="cpu")


def answer(paths: Paths, cell: Cell = CELL, options: CellOptions = ASKED, digest: str = "DIGEST") -> Answer | None:
    return Answers(paths, options, digest).of(cell)


def published(paths: Paths, digest: str = "DIGEST", **change: object) -> CellRun:
    run = dataclasses.replace(factories.cell_run("2.5", "4.53"), **change)  # type: ignore[arg-type]
    run = dataclasses.replace(run, environment=dataclasses.replace(run.environment, digest=digest))
    parquet.write(paths.published, [run, factories.cell_run("2.6", "4.48")])
    return run


def test_an_answer_of_this_machine_holds_for_the_same_suite_and_request(axes: Axes, paths: Paths) -> None:
    assert answer(paths) is None
    run_cell(CELL, ASKED, axes, paths, command=fake_check("pass"))
    found = answer(paths)
    assert found is not None
    assert (found.place, found.holds, found.run().cell) == ("recorded", True, CELL.id)
    assert answer(paths, options=CellOptions(categories=("export",))) is None
    assert answer(paths, Cell("2.6", "4.48")) is None
    again = answer(paths, digest="another")
    assert again is not None
    assert again.why_again == "the answer of 2026-11-21 is of another version of the suite"


def test_a_record_that_cannot_be_read_is_asked_again(axes: Axes, paths: Paths) -> None:
    run_cell(CELL, ASKED, axes, paths, command=fake_check("pass"))
    (paths.records / f"{CELL.id}.jsonl").write_text("{", encoding="utf-8")
    found = answer(paths)
    assert found is not None
    assert not found.holds


def test_an_incomplete_record_is_asked_again(axes: Axes, paths: Paths) -> None:
    run_cell(CELL, ASKED, axes, paths, command=fake_check("die"))
    found = answer(paths)
    assert found is not None
    assert found.why_again == "the answer of 2026-11-21 is incomplete"


def test_a_published_answer_need_not_be_asked_again(axes: Axes, paths: Paths) -> None:
    run = published(paths)
    found = answer(paths)
    assert found is not None
    assert (found.place, found.why_again) == ("published", "")
    assert found.run() == run
    # It is no answer to a narrower request, and a record of this machine that does not hold does not hide it.
    assert answer(paths, options=CellOptions(keyword="x")) is None
    run_cell(CELL, ASKED, axes, paths, command=fake_check("die"))
    assert answer(paths) == found


@pytest.mark.parametrize(
    ("digest", "change", "why"),
    [
        ("other", {}, "another version of the suite"),
        ("DIGEST", {"complete": False}, "incomplete"),
        ("DIGEST", {"unresolved": "no such pair", "records": ()}, "no environment could be made"),
        ("DIGEST", {"environment": factories.environment(subjects=("native",))}, "another request"),
    ],
)
def test_a_published_answer_that_does_not_hold_says_why(
    paths: Paths, digest: str, change: dict[str, object], why: str
) -> None:
    published(paths, digest, **change)
    found = answer(paths)
    assert found is not None
    assert why in found.why_again


def test_a_cell_that_follows_upstream_is_always_asked_again(paths: Paths) -> None:
    moving = Cell("nightly", "main")
    run = factories.run(factories.record(), digest="DIGEST")
    run = dataclasses.replace(run, environment=dataclasses.replace(run.environment, cell=moving.id))
    parquet.write(paths.published, [run])
    found = answer(paths, moving)
    assert found is not None
    assert found.why_again == "the answer of 2026-11-21 is about the releases of that day"


def test_a_torn_published_file_is_one_error_with_a_next_command(paths: Paths) -> None:
    published(paths)
    paths.published.write_bytes(paths.published.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut off") as caught:
        answer(paths)
    assert caught.value.next_command.startswith("git checkout -- ")
