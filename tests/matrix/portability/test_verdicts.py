from __future__ import annotations

import json
from pathlib import Path

import pytest

from matrix.cells.cell import Cell
from matrix.errors import ExitCode
from matrix.portability.expected import Known
from matrix.portability.verdicts import Crossings, Result

A, B = Cell("2.5", "4.53"), Cell("2.6", "4.48")
KNOWN = Known("st*", "program", "fail", "older torch", "torch", {"saved_torch": ">=2.6", "loaded_torch": "<2.6"})


def act(status: str = "pass", *, digest: str = "D", finished: str = "1", programs: str = "1") -> str:
    """The text of a file of answers about one program."""
    lines: list[dict[str, str]] = [
        {"kind": "portability", "torch": "2.5.1", "transformers": "4.53.3", "digest": digest, "programs": programs}
    ]
    lines += [
        {"kind": "answer", "program": "static", "question": question, "status": status, "message": "why"}
        for question in ("program", "context")
    ]
    return "".join(json.dumps(line) + "\n" for line in [*lines, {"kind": "end", "finished": finished}])


class Files:
    """Answers of A and B; each is a pass until it is said to be something else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for saver in (A, B):
            for loader in (None, A, B):
                self.say(act(), saver, loader)

    def path(self, saver: Cell, loader: Cell | None) -> Path:
        return self.folder / f"{saver.id}--{loader.id if loader else 'saved'}.jsonl"

    def say(self, text: str, saver: Cell, loader: Cell | None = None) -> None:
        self.path(saver, loader).write_text(text, encoding="utf-8")

    def collect(self, *known: Known) -> Crossings:
        return Crossings.collect("kvconform", "D", [A, B], self.path, known)

    def result(self, saver: Cell, loader: Cell, question: str = "program", *known: Known) -> Result:
        return self.collect(*known).of("static", question)[saver.id, loader.id]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_every_pair_is_asked_both_questions(files: Files) -> None:
    found = files.collect()
    assert len(found.results) == 2 * 2 * 2
    assert {result.verdict for result in found.results} == {"ok"}
    assert found.programs == ["static"]
    assert found.exit_code == ExitCode.OK
    assert found.to_json()["counts"] == {"pass": 8}


@pytest.mark.parametrize("status", ["fail", "error", "missing"])
def test_what_nobody_expected_is_wrong(files: Files, status: str) -> None:
    files.say(act(status), B, A)
    result = files.result(B, A)
    assert (result.status, result.verdict, result.message) == (status, "wrong", "why")
    assert files.collect().exit_code == ExitCode.REGRESSION


def test_not_applicable_is_ok(files: Files) -> None:
    files.say(act("na"), B, A)
    assert files.result(B, A).verdict == "ok"
    assert files.collect().exit_code == ExitCode.OK


def test_what_was_not_saved_answers_as_its_saver_did(files: Files) -> None:
    files.say(act("fail"), B)
    result = files.result(B, A)
    assert (result.status, result.message) == ("fail", "not saved: why")


def test_an_expected_failure_is_known_in_its_pairs_alone(files: Files) -> None:
    files.say(act("fail"), B, A)
    files.say(act("fail"), A, B)
    assert files.result(B, A, "program", KNOWN).verdict == "known"
    assert files.result(B, A, "program", KNOWN).reason == "older torch (fault: torch)"
    assert files.result(B, A, "context", KNOWN).verdict == "wrong"
    assert files.result(A, B, "program", KNOWN).verdict == "wrong"


def test_a_pass_that_a_row_does_not_expect_is_stale_and_another_failure_is_wrong(files: Files) -> None:
    assert files.result(B, A, "program", KNOWN).verdict == "fixed"
    assert files.collect(KNOWN).exit_code == ExitCode.REGRESSION
    files.say(act("error"), B, A)
    assert files.result(B, A, "program", KNOWN).verdict == "wrong"


def test_answers_of_another_suite_are_missing(files: Files) -> None:
    files.say(act(digest="E"), B, A)
    assert files.result(B, A).status == "missing"
    files.say(act(digest="E"), A)
    files.say(act(digest="E"), B)
    assert files.collect().results == ()
    assert files.collect().exit_code == ExitCode.EMPTY


def test_answers_about_programs_that_were_saved_anew_are_missing(files: Files) -> None:
    files.say(act(finished="2"), B)
    assert files.result(B, A).status == "missing"
    assert files.result(A, B).status == "pass"
