from __future__ import annotations

import json

import pytest

from matrix.__main__ import main
from matrix.cells.options import EVERY_SUBJECT
from matrix.collect.digest import Suite
from matrix.commands import plan
from matrix.errors import ExitCode
from matrix.paths import Paths
from tests.matrix import factories
from tests.matrix.factories import record

SUITE = Suite("DIGEST", {"kvconform": {"export": "DIGEST"}})


@pytest.fixture(autouse=True)
def home(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A machine that answered torch 2.5 and transformers 4.53 with the present suite."""
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    monkeypatch.setattr(plan, "suite", lambda _: SUITE)
    factories.write(paths.records, factories.run(record(sources="DIGEST"), subjects=EVERY_SUBJECT))
    return paths


def test_json_names_the_cells_of_a_python_and_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--tier", "smoke", "--device", "cuda", "--python", "3.12", "--format", "json"]) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["id"] == "torch2.5-tf4.53-py3.12-cuda"
    assert len(rows) == 6


def test_the_table_says_what_runs_what_does_not_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--torch", "2.5", "--transformers", "4.52,4.53,5.23"]) == ExitCode.OK
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines() if line}
    assert rows["torch2.5-tf4.52-py3.11-cpu"] == "run never asked"
    assert rows["torch2.5-tf4.53-py3.11-cpu"] == "recorded 1 of 1"
    assert rows["torch2.5-tf5.23-py3.11-cpu"] == "not transformers 5.23 needs torch >=2.6"
    assert rows["3"] == "cells: 1 to run, 1 recorded, 1 cannot be made"
    assert rows["1"] == "of 1 answers are current"


def test_next_names_the_cells_that_are_due(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", "--torch", "2.5", "--transformers", "4.51..4.53", "--next", "1"]
    assert main(line) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[0] == "torch2.5-tf4.52-py3.11-cpu  run        never asked"
    assert main([*line, "--format", "github"]) == ExitCode.OK
    assert [job["select"] for job in json.loads(capsys.readouterr().out)["include"]] == ["torch2.5-tf{4.52}-py3.11-*"]


def test_nothing_is_due_where_all_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--torch", "2.5", "--transformers", "4.53", "--next", "3"]) == ExitCode.EMPTY
    assert "nothing is due" in capsys.readouterr().err


def test_github_gets_jobs_that_take_equally_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--torch", "2.5,2.6", "--transformers", "4.53", "--format", "github"]) == ExitCode.OK
    jobs = json.loads(capsys.readouterr().out)["include"]
    assert [job["select"] for job in jobs] == ["torch2.5-tf{4.53}-py3.11-*", "torch2.6-tf{4.53}-py3.11-*"]
    options = ["--torch", "2.6", "--transformers", "4.48..4.53", "--jobs", "2"]
    assert main(["plan", *options, "--format", "github"]) == ExitCode.OK
    jobs = json.loads(capsys.readouterr().out)["include"]
    assert [job["cells"] for job in jobs] == [3, 3]


def test_buildkite_is_told_what_was_selected(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", "--tier", "smoke", "--device", "cuda", "--jobs", "1", "--format", "buildkite"]
    assert main(line) == ExitCode.OK
    command = json.loads(capsys.readouterr().out)["steps"][0]["commands"][-1]
    assert command.startswith("python -m matrix run --tier=smoke --device=cuda --select '{torch2.5-tf{4.53}-py3.11-*,")


def test_no_job_is_none_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--jobs", "0", "--format", "github"]) == ExitCode.USAGE
    assert "give 1 or more" in capsys.readouterr().err


def test_a_matrix_without_a_job_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--torch", "2.5", "--transformers", "5.23", "--format", "github"]) == ExitCode.EMPTY
    assert "no cell of the selection can run" in capsys.readouterr().err
