from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from matrix.cells.axes import Axes
from matrix.collect import uv, venv
from matrix.errors import MakingError
from matrix.paths import Paths
from tests.matrix.helpers import CELL

Calls = list[tuple[list[str], str | None]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Records what uv was asked; every question is answered with two pins."""
    made: Calls = []

    def fake(arguments: list[str], *, cwd: Path, text: str | None = None) -> str:
        made.append((list(arguments), text))
        if arguments[0] == "venv":
            python = Path(arguments[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        return "torch==2.5.1\ntransformers==4.53.3\n"

    monkeypatch.setattr(uv, "run", fake)
    return made


def verbs(calls: Calls) -> list[str]:
    return [arguments[0] if arguments[0] == "venv" else arguments[1] for arguments, _ in calls]


def test_the_second_time_nothing_is_resolved_and_nothing_asked_online(axes: Axes, paths: Paths, calls: Calls) -> None:
    made = venv.make(CELL, axes, paths)
    assert made.versions == {"torch": "2.5.1", "transformers": "4.53.3"}
    assert verbs(calls) == ["compile", "venv", "sync"]
    calls.clear()
    venv.make(CELL, axes, paths)
    assert verbs(calls) == ["sync"]
    assert "--offline" in calls[0][0]


def test_fresh_resolves_and_rebuilds(axes: Axes, paths: Paths, calls: Calls) -> None:
    venv.make(CELL, axes, paths)
    leftover = paths.venvs / CELL.venv / "leftover"
    leftover.touch()
    calls.clear()
    venv.make(CELL, axes, paths, fresh=True)
    assert verbs(calls) == ["compile", "venv", "sync"]
    assert not leftover.exists()


def test_an_environment_without_an_interpreter_is_made_again(axes: Axes, paths: Paths, calls: Calls) -> None:
    venv.make(CELL, axes, paths)
    (paths.venvs / CELL.venv / "bin" / "python").unlink()
    calls.clear()
    venv.make(CELL, axes, paths)
    assert verbs(calls) == ["venv", "sync"]


def test_what_the_cache_lacks_is_fetched_and_its_size_named_before(
    axes: Axes, paths: Paths, calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = uv.run

    def offline_fails(arguments: list[str], **about: object) -> str:
        if "--offline" in arguments:
            raise MakingError("not cached")
        return answered(arguments, **about)  # type: ignore[arg-type]

    monkeypatch.setattr(uv, "run", offline_fails)
    venv.make(CELL, axes, paths)
    assert "--offline" not in calls[-1][0]
    _, installing, downloading = capsys.readouterr().err.splitlines()
    assert installing.startswith(f"{CELL.venv}: installing torch 2.5.1, transformers 4.53.3")
    assert downloading.startswith(f"{CELL.venv}: downloading")
    assert "3 GB" in downloading


def test_no_download_is_announced_where_none_is_needed(
    axes: Axes, paths: Paths, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    venv.make(CELL, axes, paths)
    told = capsys.readouterr()
    assert [line.split(":")[1].split()[0] for line in told.err.splitlines()] == ["asking", "installing"]
    assert "3 GB" not in told.err
    assert not told.out


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on PATH")
def test_without_a_network_and_a_cache_one_error_is_told(
    axes: Axes, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(paths.home / "empty"))
    with pytest.raises(MakingError, match="did not answer"):
        venv.make(CELL, axes, paths)
