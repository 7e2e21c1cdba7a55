from __future__ import annotations

from pathlib import Path

import pytest

from matrix.__main__ import main
from matrix.collect.venv import python_of
from matrix.errors import ExitCode
from matrix.paths import Paths
from tests.matrix import factories
from tests.matrix.factories import record
from tests.matrix.helpers import CELL

HERE = ["checks", "--torch", "2.5", "--transformers", "4.53"]


@pytest.fixture(autouse=True)
def home(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    return paths


def answered(paths: Paths) -> None:
    records = (record("export/two"), record("archive/one"), record("archive/one", subject="native"))
    factories.write(paths.records, factories.run(*records))


def test_a_record_tells_its_checks_once_and_in_order(home: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    answered(home)
    assert main(HERE) == ExitCode.OK
    assert capsys.readouterr().out == "archive/one\nexport/two\n"


def test_one_category(home: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    answered(home)
    assert main([*HERE, "--category", "export"]) == ExitCode.OK
    assert capsys.readouterr().out == "export/two\n"


def test_an_environment_is_asked_before_any_record(home: Paths, capfd: pytest.CaptureFixture[str]) -> None:
    answered(home)
    python = Path(python_of(CELL, home))
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\nexit 3\n', encoding="utf-8")
    python.chmod(0o755)
    assert main([*HERE, "--category", "export"]) == ExitCode.EMPTY
    assert capfd.readouterr().out == "-m kvconform check --list --category=export\n"


def test_nothing_to_read_them_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(HERE) == ExitCode.EMPTY
    assert "no environment and no record" in capsys.readouterr().err
