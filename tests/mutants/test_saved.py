"""Answers that are saved as they come: a run that was stopped goes on, and asks nothing twice."""

import contextlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mutants import __main__ as command
from mutants import running, saved
from mutants.asking import Check
from mutants.generated import Mutant
from mutants.running import Questions, Verdict
from mutants.saved import Answers

MUTANTS = [Mutant(name) for name in ("a", "b", "c")]
NOTHING = Questions((), (), ())


def verdict(name, status="fail"):
    return Verdict(name, None if status == "survived" else "some/check", status, "a message\nof two lines", 0.5)


@pytest.fixture
def asked(monkeypatch):
    """The mutants that are judged, instead of judging them; what `stop` holds ends the run, as Ctrl-C does."""
    names, statuses, stop = [], {}, set()

    def judge_all(mutants, questions, jobs):
        for one in mutants:
            if one.name in stop:
                raise KeyboardInterrupt
            names.append(one.name)
            yield verdict(one.name, statuses.get(one.name, "fail"))

    monkeypatch.setattr(running, "judge_all", judge_all)
    return SimpleNamespace(names=names, statuses=statuses, stop=stop)


def judged(answers, questions=lambda: NOTHING, check=""):
    return [one.mutant for one in answers.judge_all(MUTANTS, questions, jobs=1, check=check)]


def test_a_stopped_run_goes_on(tmp_path, asked):
    answers = Answers(tmp_path / "deep" / "answers.jsonl")
    asked.statuses["a"] = "survived"
    asked.stop.add("c")
    with pytest.raises(KeyboardInterrupt):
        judged(answers)
    assert answers.read() == {("a", ""): verdict("a", "survived"), ("b", ""): verdict("b")}
    asked.stop.clear()
    assert judged(answers) == ["a", "b", "c"]
    assert asked.names == ["a", "b", "c"]


def test_where_all_is_answered_nothing_is_asked(tmp_path, asked):
    answers = Answers(tmp_path / "answers.jsonl")
    judged(answers)

    def questions():
        raise AssertionError

    assert judged(answers, questions) == ["a", "b", "c"]
    answers.forget()
    answers.forget()
    with pytest.raises(AssertionError):
        judged(answers, questions)


def test_one_check_by_itself_is_another_question(tmp_path, asked):
    answers = Answers(tmp_path / "answers.jsonl")
    judged(answers)
    judged(answers, check="some/check")
    judged(answers, check="some/check")
    assert asked.names == ["a", "b", "c"] * 2


def test_a_timeout_is_no_answer(tmp_path, asked):
    answers = Answers(tmp_path / "answers.jsonl")
    asked.statuses["b"] = "timeout"
    judged(answers)
    judged(answers)
    assert asked.names == ["a", "b", "c", "b"]


def test_a_line_that_was_being_written_is_cut_off(tmp_path, asked):
    answers = Answers(tmp_path / "answers.jsonl")
    judged(answers)
    whole = answers.path.read_bytes()
    answers.path.write_bytes(whole[:-9])
    assert judged(answers) == ["a", "b", "c"]
    assert asked.names == ["a", "b", "c", "c"]
    assert [json.loads(line)["mutant"] for line in answers.path.read_bytes().splitlines()] == ["a", "b", "c"]


def test_other_code_is_asked_anew_and_other_reasons_are_not(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the file is named by the release")
    here = tmp_path / "mutants"
    shutil.copytree(Path(saved.__file__).parent, here, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(saved, "__file__", str(here / "saved.py"))
    before = Answers.here(tmp_path).path
    with (here / "harmless.toml").open("a", encoding="utf-8") as file:
        file.write("# another reason\n")
    assert Answers.here(tmp_path).path == before
    with (here / "sizes.py").open("a", encoding="utf-8") as file:
        file.write("# another mutant\n")
    assert Answers.here(tmp_path).path.parent == tmp_path
    assert Answers.here(tmp_path).path != before


def test_the_command_goes_on_and_says_so(tmp_path, asked, monkeypatch, capsys):
    pytest.importorskip("transformers", reason="the file is named by the release")
    monkeypatch.setattr(running, "prepare", lambda: {one.name: one for one in MUTANTS})
    monkeypatch.setattr(command, "_questions", lambda: NOTHING)
    answers = Answers(tmp_path / "answers.jsonl")
    monkeypatch.setattr(Answers, "here", lambda: answers)
    asked.stop.add("c")
    assert command.main([]) == command.STOPPED
    assert f"stopped; 2 answers are in {answers.path}" in capsys.readouterr().err
    asked.stop.clear()
    assert command.main([]) == 0
    assert "3 of 3 mutants killed" in capsys.readouterr().out
    assert command.main(["--fresh"]) == 0
    assert asked.names == ["a", "b", "c", "a", "b", "c"]


def test_a_check_that_cannot_fail_is_named(tmp_path, monkeypatch, capsys):
    def notices_all(registered):
        raise AssertionError(registered.name)

    def notices_the_last(registered):
        assert registered.name != "c"

    def cannot_fail(registered):
        assert registered

    functions = {"x/all": notices_all, "x/last": notices_the_last, "x/cannot-fail": cannot_fail}
    checks = tuple(Check(name, function) for name, function in functions.items())
    known = {one.name: replace(one, context=contextlib.nullcontext) for one in MUTANTS}
    monkeypatch.setattr(running, "prepare", lambda: known)
    monkeypatch.setattr(command, "_questions", lambda: Questions(checks, (), ()))
    monkeypatch.setattr(Answers, "here", lambda: Answers(tmp_path / "answers.jsonl"))
    for arguments in (["--idle"], ["--idle", "--jobs=1"]):
        assert command.main(arguments) == 0
        out = capsys.readouterr().out
        assert "3 of 3 mutants killed" in out
        assert "1 of 3 checks kill no mutant: x/cannot-fail" in out


def test_forks_that_nobody_waits_for_are_ended(tmp_path):
    @contextlib.contextmanager
    def slow():
        time.sleep(60)
        (tmp_path / "ended").touch()
        yield

    judging = running.judge_all(
        [Mutant("quick", context=contextlib.nullcontext), Mutant("slow", context=slow)], NOTHING, jobs=2
    )
    begun = time.monotonic()
    assert next(judging).mutant == "quick"
    judging.close()
    assert time.monotonic() - begun < 30
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert not (tmp_path / "ended").exists()
