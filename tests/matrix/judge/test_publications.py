"""What a publication changed, by cause, and the file that remembers it."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.errors import UserError
from matrix.judge.baseline import Baseline, BaselineRow
from matrix.judge.publications import MOST, MOST_EXAMPLES, Publication, load, publication, save
from matrix.records.lines import CellRun
from tests.matrix.factories import record, run

LATER = "2026-11-23T10:00:00Z"
ROW = BaselineRow("model/*", ("fail",), "why", "transformers", link="docs/known-failures/vmap-masks.md")


def cell(torch: str, status: str, message: str = "", names: int = 6, **about: object) -> CellRun:
    return run(
        *(record(f"model/{number}", status, message=message) for number in range(names)),  # type: ignore[arg-type]
        torch=torch,
        **about,
    )


def test_differences_are_told_by_cause_over_all_cells() -> None:
    old = [cell("2.5", "pass"), cell("2.6", "pass"), cell("2.7", "pass")]
    new = [cell("2.5", "fail", "bad [a]", started=LATER), cell("2.6", "fail", "bad [b]", digest="e" * 64), old[2]]
    found = publication(old, new, Baseline((ROW,)))
    assert (found.date, found.cells) == ("2026-11-23", (new[0].cell, new[1].cell))
    assert found.suites == ("d" * 64, "e" * 64)
    (cause,) = (each for each in found.causes if each.kind == "regressed")
    assert (cause.subject, cause.failure, cause.checks, cause.cells) == ("kvconform", "vmap-masks", 6, (new[1].cell,))
    assert cause.examples == tuple(f"model/{number}" for number in range(MOST_EXAMPLES))
    # The same suite in the same environment answered otherwise: that is no change of anybody's code.
    assert [each.kind for each in found.causes] == ["regressed", "flaky"]


def test_cells_as_a_whole_are_one_cause() -> None:
    found = publication([], [cell("2.5", "pass"), cell("2.6", "pass", names=2)], Baseline())
    assert [(each.kind, each.subject, each.checks, len(each.cells)) for each in found.causes] == [("added", "", 0, 2)]


def test_the_file_gives_back_what_was_written_and_forgets_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / "publications.json"
    assert load(path) == []
    one = publication([], [cell("2.5", "pass")], Baseline())
    save(path, [one, *(Publication(f"day {number}", (), (), ()) for number in range(MOST))])
    assert load(path)[0] == one
    assert len(load(path)) == MOST


@pytest.mark.parametrize("text", ["[]", "{", '{"schema": 2}', '{"schema": 1, "publications": [{}]}'])
def test_a_malformed_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "publications.json").write_text(text)
    with pytest.raises(UserError, match=r"publications\.json"):
        load(tmp_path / "publications.json")
