from __future__ import annotations

import json
from pathlib import Path

import pytest

from matrix.cells.cell import Cell
from matrix.portability import pages
from matrix.portability.verdicts import QUESTIONS, Crossings, Result

A, B = Cell("2.5", "4.53"), Cell("2.6", "4.48")


def crossings(**about: str) -> Crossings:
    """All pass, but for the program question of what A saved and B loads."""
    results = [
        Result("static", question, saver.id, loader.id, "pass")
        for question in QUESTIONS
        for saver in (A, B)
        for loader in (A, B)
    ]
    results[1] = Result("static", "program", A.id, B.id, **about) if about else results[1]
    return Crossings("kvconform", "D", (A, B), {A.id: "torch 2.5.1, transformers 4.53.3"}, tuple(results))


@pytest.mark.parametrize(
    ("about", "sign"),
    [
        ({}, "✓"),
        ({"status": "fail", "verdict": "wrong"}, "✗"),
        ({"status": "error", "verdict": "known", "reason": "older torch"}, "(!)"),
        ({"status": "pass", "verdict": "fixed"}, "✓*"),
        ({"status": "missing", "verdict": "wrong"}, "?"),
        ({"status": "na"}, "-"),
    ],
)
def test_a_place_has_its_sign(about: dict[str, str], sign: str) -> None:
    page = pages.markdown(crossings(**about))
    assert f"| 2.5/4.53 | ✓ | {sign} |" in page
    assert "| 2.6/4.48 | ✓ | ✓ |" in page


def test_a_failure_is_named_with_its_pair_reason_and_message() -> None:
    page = pages.markdown(crossings(status="fail", verdict="known", reason="older torch", message="a `b`"))
    assert "- **fail, known** static (program): older torch `a 'b'`\n  2.5/4.53 in 2.6/4.48" in page
    assert "8 questions: 7 pass, 1 fail; 1 of the non-passes are expected" in page


def test_a_cell_that_saved_nothing_says_so() -> None:
    assert "| 2.6/4.48 | nothing saved |" in pages.markdown(crossings())


def test_both_files_are_written(tmp_path: Path) -> None:
    found = crossings(status="fail", verdict="wrong")
    pages.write(found, tmp_path)
    assert (tmp_path / "portability.md").read_text(encoding="utf-8") == pages.markdown(found)
    assert json.loads((tmp_path / "portability.json").read_text(encoding="utf-8")) == found.to_json()


def test_the_terminal_shows_the_grids_and_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    pages.show(crossings(status="fail", verdict="wrong", message="[bold]why[/bold]"))
    out = " ".join(capsys.readouterr().out.split())
    assert "program: saved in (rows), loaded in (columns)" in out
    assert f"wrong: program static, saved in {A.id}, loaded in {B.id}: [bold]why[/bold]" in out
