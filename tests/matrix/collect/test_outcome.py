from __future__ import annotations

import pytest

from matrix.collect.outcome import Outcome
from matrix.errors import ExitCode
from matrix.paths import Paths
from tests.matrix.helpers import CELL


def test_what_is_saved_is_loaded(paths: Paths) -> None:
    outcome = Outcome(CELL.id, ExitCode.REGRESSION, "why", {"pass": 3, "regressed": 1}, {"check": 1.5})
    outcome.save(paths)
    assert Outcome.load(paths, CELL) == outcome


def test_a_later_run_takes_the_place_of_an_earlier_one(paths: Paths) -> None:
    for code in (ExitCode.REGRESSION, ExitCode.OK):
        Outcome(CELL.id, code).save(paths)
    assert Outcome.load(paths, CELL) == Outcome(CELL.id)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"cell": "x", "of another release": 1}'])
def test_what_cannot_be_read_is_no_outcome(paths: Paths, text: str | None) -> None:
    if text is not None:
        paths.outcomes.mkdir(parents=True)
        (paths.outcomes / f"{CELL.id}.json").write_text(text, encoding="utf-8")
    assert Outcome.load(paths, CELL) is None
