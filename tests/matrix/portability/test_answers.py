from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from matrix.portability.answers import Act

LINES = [
    {"kind": "portability", "torch": "2.5.1", "schema": 1},
    {"kind": "answer", "program": "a", "question": "program", "status": "pass", "message": ""},
    {"kind": "answer", "program": "a", "question": "context", "status": "fail", "message": "why"},
    {"kind": "end", "finished": "now"},
]
TEXT = "".join(json.dumps(line) + "\n" for line in LINES)


def read(folder: Path, text: str) -> Act:
    path = folder / "answers.jsonl"
    path.write_text(text, encoding="utf-8")
    act = Act.read(path)
    assert act is not None
    return act


def test_a_whole_file(tmp_path: Path) -> None:
    act = read(tmp_path, TEXT)
    assert act.header == {"torch": "2.5.1", "schema": "1"}
    assert act.answer("a", "program") == ("pass", "")
    assert act.answer("a", "context") == ("fail", "why")
    assert act.finished == "now"


@given(st.integers(0, len(TEXT)))
def test_a_file_that_was_cut_anywhere_holds_its_whole_lines_and_nothing_else(
    tmp_path_factory: object, cut: int
) -> None:
    act = read(tmp_path_factory.mktemp("cut"), TEXT[:cut])  # type: ignore[attr-defined]
    whole = read(tmp_path_factory.mktemp("whole"), TEXT)  # type: ignore[attr-defined]
    assert act.answers.items() <= whole.answers.items()
    assert len(act.answers) >= TEXT[:cut].count('"answer"') - 1
    assert (act.finished == "now") == (cut >= len(TEXT) - 1)


def test_no_file_is_no_act(tmp_path: Path) -> None:
    assert Act.read(tmp_path / "none.jsonl") is None


def test_what_a_dead_process_did_not_answer_is_an_error_and_what_nobody_asked_is_missing() -> None:
    answers = {("a", "program"): ("pass", "")}
    dead, silent = Act({}, answers, died="ended with code -11"), Act({}, answers)
    assert dead.answer("a", "program") == silent.answer("a", "program") == ("pass", "")
    assert dead.answer("a", "context") == ("error", "the process ended with code -11")
    assert silent.answer("a", "context") == ("missing", "it was not asked")
