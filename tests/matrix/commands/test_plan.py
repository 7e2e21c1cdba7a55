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


def test_github_gets_a_job_a_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--torch", "2.5,2.6", "--transformers", "4.53", "--format", "github"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {
        "include": [{"torch": "2.5", "cells": 1}, {"torch": "2.6", "cells": 1}]
    }


def test_a_matrix_without_a_job_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--torch", "2.5", "--transformers", "5.23", "--format", "github"]) == ExitCode.EMPTY
    assert "no cell of the selection can run" in capsys.readouterr().err
