from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.collect import environment, interpreters, resolve, uv
from matrix.errors import MakingError, UnresolvedError
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


def test_a_minor_is_its_newest_patch_and_a_full_version_itself(axes: Axes, paths: Paths) -> None:
    asked = resolve.question(CELL, axes, paths, None)
    assert asked.requirements[:2] == ("torch==2.5.*", "transformers==4.53.*")
    assert any(line.startswith("pytest-xdist") for line in asked.requirements)
    assert resolve.question(Cell("2.5.0", "4.53.1"), axes, paths, None).requirements[:2] == (
        "torch==2.5.0",
        "transformers==4.53.1",
    )


def test_what_follows_upstream_is_asked_where_it_is(axes: Axes, paths: Paths) -> None:
    asked = resolve.question(Cell("nightly", "main"), axes, paths, "cu130")
    assert asked.requirements[0] == "torch>2.15.99.dev0"
    assert asked.requirements[1].startswith("transformers @ git+https://github.com/huggingface/transformers")
    assert "https://download.pytorch.org/whl/nightly/cu130" in asked.options


def test_the_backend_is_uvs(axes: Axes, paths: Paths) -> None:
    assert resolve.question(CELL, axes, paths, "cpu").options == ("--torch-backend", "cpu")
    assert resolve.question(CELL, axes, paths, None).options == ()
    keys = {resolve.question(CELL, axes, paths, backend).key for backend in (None, "cpu", "cu128")}
    assert len(keys) == 3


def test_the_second_time_nothing_is_resolved_and_nothing_asked_online(axes: Axes, paths: Paths, calls: Calls) -> None:
    made = environment.make(CELL, axes, paths)
    assert made.versions == {"torch": "2.5.1", "transformers": "4.53.3"}
    assert verbs(calls) == ["compile", "venv", "sync"]
    calls.clear()
    environment.make(CELL, axes, paths)
    assert verbs(calls) == ["sync"]
    assert "--offline" in calls[0][0]


def test_fresh_resolves_and_rebuilds(axes: Axes, paths: Paths, calls: Calls) -> None:
    environment.make(CELL, axes, paths)
    leftover = paths.environments / CELL.environment / "leftover"
    leftover.touch()
    calls.clear()
    environment.make(CELL, axes, paths, fresh=True)
    assert verbs(calls) == ["compile", "venv", "sync"]
    assert not leftover.exists()


def test_an_environment_without_an_interpreter_is_made_again(axes: Axes, paths: Paths, calls: Calls) -> None:
    environment.make(CELL, axes, paths)
    (paths.environments / CELL.environment / "bin" / "python").unlink()
    calls.clear()
    environment.make(CELL, axes, paths)
    assert verbs(calls) == ["venv", "sync"]


def old(paths: Paths) -> None:
    for path in paths.resolved.glob("*.txt"):
        os.utime(path, (time.time() - 2 * resolve.FRESH_FOR,) * 2)


def test_an_old_resolution_is_renewed(axes: Axes, paths: Paths, calls: Calls) -> None:
    environment.make(CELL, axes, paths)
    old(paths)
    calls.clear()
    environment.make(CELL, axes, paths)
    assert verbs(calls) == ["compile", "sync"]


@pytest.mark.parametrize(("error", "stands"), [(MakingError("away"), True), (UnresolvedError("no pair"), False)])
def test_without_a_network_the_old_resolution_stands(  # noqa: PLR0917 - fixtures
    axes: Axes, paths: Paths, calls: Calls, monkeypatch: pytest.MonkeyPatch, error: Exception, stands: bool
) -> None:
    environment.make(CELL, axes, paths)
    old(paths)
    answered = uv.run

    def fail(arguments: list[str], **about: object) -> str:
        if "compile" in arguments:
            raise error
        return answered(arguments, **about)  # type: ignore[arg-type]

    monkeypatch.setattr(uv, "run", fail)
    if stands:
        assert environment.make(CELL, axes, paths).versions["torch"] == "2.5.1"
    else:
        with pytest.raises(UnresolvedError):
            environment.make(CELL, axes, paths)


def test_what_the_cache_lacks_is_fetched(
    axes: Axes, paths: Paths, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = uv.run

    def offline_fails(arguments: list[str], **about: object) -> str:
        if "--offline" in arguments:
            raise MakingError("not cached")
        return answered(arguments, **about)  # type: ignore[arg-type]

    monkeypatch.setattr(uv, "run", offline_fails)
    environment.make(CELL, axes, paths)
    assert "--offline" not in calls[-1][0]


def test_this_interpreter_is_found() -> None:
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert interpreters.find(minor) == sys.executable


def test_an_interpreter_that_nobody_has_is_this_machines_lack() -> None:
    with pytest.raises(MakingError, match="no Python 3"):
        interpreters.find("3.99")


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on PATH")
def test_without_a_network_and_a_cache_one_error_is_told(
    axes: Axes, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(paths.home / "empty"))
    with pytest.raises(MakingError, match="did not answer"):
        environment.make(CELL, axes, paths)
