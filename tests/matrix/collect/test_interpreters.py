from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matrix.collect import interpreters
from matrix.errors import MakingError


def interpreter(folder: Path, says: str) -> Path:
    """A program that answers as an interpreter of a version would."""
    path = folder / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho {says}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def pyenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PYENV_ROOT; nothing is on the path and uv finds nothing."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(interpreters, "find_uv", lambda: "/bin/false")
    return tmp_path


def test_this_interpreter_is_found() -> None:
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert interpreters.find(minor) == sys.executable


def test_the_newest_patch_of_pyenv_is_taken(pyenv: Path) -> None:
    paths = [interpreter(pyenv / "versions" / version, version) for version in ("3.7.9", "3.7.10")]
    assert interpreters.find("3.7") == str(paths[1])
    assert interpreters.find("3.7.9") == str(paths[0])


def test_an_interpreter_that_answers_another_version_is_passed_over(pyenv: Path) -> None:
    interpreter(pyenv / "versions" / "3.7.9", "3.70.1")
    with pytest.raises(MakingError, match=r"no Python 3\.7 on this machine"):
        interpreters.find("3.7")


def test_an_interpreter_that_does_not_answer_is_passed_over(pyenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = interpreter(pyenv / "versions" / "3.7.9", "3.7.9")
    run = subprocess.run

    def hangs(command: list[str], **about: object) -> object:
        if command[0] == str(path):
            raise subprocess.TimeoutExpired(command, 30)
        return run(command, **about)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(MakingError):
        interpreters.find("3.7")
