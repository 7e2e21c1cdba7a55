from __future__ import annotations

import dataclasses

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import EVERY_SUBJECT, CellOptions
from matrix.collect.answers import Answer, Answers
from matrix.collect.digest import Suite
from matrix.commands.cell import run_cell
from matrix.errors import UserError
from matrix.paths import Paths
from matrix.records import parquet
from matrix.records.lines import CellRun
from tests.matrix import factories
from tests.matrix.helpers import CELL, SUITE, fake_check

ASKED = CellOptions(device="cpu")


def answer(paths: Paths, cell: Cell = CELL, options: CellOptions = ASKED, suite: Suite = SUITE) -> Answer | None:
    return Answers(paths, options, suite).of(cell)


def about(digest: str, run: CellRun, subjects: tuple[str, ...] = EVERY_SUBJECT) -> CellRun:
    """A run whose answers are about the sources of a digest, in the two categories of the suite at hand."""
    records = [
        dataclasses.replace(record, sources=digest) for record in run.records if record.category in SUITE.categories
    ]
    environment = dataclasses.replace(run.environment, subjects=subjects)
    return dataclasses.replace(run, environment=environment, records=tuple(records))


def published(paths: Paths, digest: str = "DIGEST", **change: object) -> CellRun:
    run = dataclasses.replace(about(digest, factories.cell_run("2.5", "4.53")), **change)  # type: ignore[arg-type]
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
    again = answer(paths, suite=Suite("another", {"kvconform": {"round-trip": "another", "export": "another"}}))
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


def test_what_changed_in_a_part_of_the_sources_makes_that_part_stale(paths: Paths) -> None:
    run = published(paths)
    exports = sum(record.category == "export" for record in run.records)
    changed = Suite("another", {name: {**found, "export": "another"} for name, found in SUITE.checks.items()})
    found = answer(paths, suite=changed)
    assert found is not None
    assert (found.total - found.current, found.total) == (exports, len(run.records))
    assert (
        found.why_again
        == f"the answer of 2026-11-21 has {exports} of {found.total} answers about sources that changed since"
    )


@pytest.mark.parametrize(
    ("subjects", "checks", "why"),
    [
        (("kvconform", "native"), SUITE.checks, "does not tell about kvconform with patches"),
        (
            EVERY_SUBJECT,
            {**SUITE.checks, "native": {**SUITE.checks["native"], "later": "DIGEST"}},
            "lacks the category later",
        ),
        (EVERY_SUBJECT, {**SUITE.checks, "native": {**SUITE.checks["native"], "generate": "DIGEST"}}, ""),
    ],
)
def test_what_the_suite_has_new_is_asked(
    paths: Paths, subjects: tuple[str, ...], checks: dict[str, dict[str, str]], why: str
) -> None:
    run = about("DIGEST", factories.cell_run("2.5", "4.53"), subjects)
    parquet.write(paths.published, [run])
    found = answer(paths, suite=Suite("DIGEST", checks))
    assert found is not None
    assert why in found.why_again
    assert found.holds == (not why)


def test_a_published_file_of_an_earlier_release_tells_no_digest(paths: Paths) -> None:
    import pyarrow.parquet as pq

    published(paths)
    pq.write_table(pq.read_table(paths.published).drop_columns(["sources", "asked"]), paths.published)
    found = answer(paths)
    assert found is not None
    assert (found.current, found.why_again) == (0, "the answer of 2026-11-21 is of another version of the suite")


def test_a_cell_that_follows_upstream_is_always_asked_again(paths: Paths) -> None:
    moving = Cell("nightly", "main")
    run = factories.run(factories.record(sources="DIGEST"))
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
