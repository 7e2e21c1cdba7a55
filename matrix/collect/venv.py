"""Making the environment of a cell: a virtual environment with exactly the resolved versions and this checkout."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.collect import interpreters, resolve, steps, uv
from matrix.errors import UserError
from matrix.paths import Paths

_PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"


@dataclass(frozen=True)
class Made:
    """An environment that is ready, and the versions it was made of."""

    python: Path
    versions: dict[str, str]


def make(  # noqa: PLR0913 - options of one command
    cell: Cell,
    axes: Axes,
    paths: Paths,
    *,
    torch_backend: str | None = None,
    fresh: bool = False,
    extra: tuple[str, ...] = (),
) -> Made:
    """Make or bring up to date the environment of a cell.

    What uv's cache holds is installed without asking the network; only what is missing is downloaded. A package that
    only `extra` brought is removed when the cell is made without it.

    Raises:
        UnresolvedError: the cell cannot exist.
        MakingError: it could not be made this time.
    """
    interpreter = interpreters.find(cell.python)
    asked = resolve.question(cell, axes, paths, torch_backend, extra)
    pins = resolve.answer(asked, paths, interpreter=interpreter, fresh=fresh)
    versions = resolve.resolved(pins)
    python = _venv(paths.venvs / cell.venv, interpreter, paths, fresh=fresh)
    steps.show(cell.venv, f"installing {_named(versions)} from what is downloaded already")
    try:
        _install(python, pins, ("--offline", *asked.options), paths)
    except UserError:
        # Offline, every failure reads alike: the network decides, and its error is the one to show.
        steps.show(cell.venv, "downloading what is missing; the first time, a torch release with CUDA is about 3 GB")
        _install(python, pins, asked.options, paths)
    return Made(python, versions)


def python_of(cell: Cell, paths: Paths) -> Path:
    """Where the interpreter of a cell is, if its environment has been made."""
    return paths.venvs / cell.venv / _PYTHON


def _venv(folder: Path, interpreter: str, paths: Paths, *, fresh: bool) -> Path:
    python = folder / _PYTHON
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    # A folder without an interpreter is left by an interrupted run, or by an interpreter that was removed.
    if not python.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        uv.run(["venv", "--quiet", "--python", interpreter, str(folder)], cwd=paths.root)
    return python


def _install(python: Path, pins: Path, options: tuple[str, ...], paths: Paths) -> None:
    wanted = pins.with_suffix(".sync")
    wanted.write_text(f"{pins.read_text(encoding='utf-8')}-e {paths.root.as_uri()}\n", encoding="utf-8")
    uv.run(["pip", "sync", "--quiet", "--python", str(python), *options, str(wanted)], cwd=paths.root)


def _named(versions: dict[str, str]) -> str:
    """The two versions for people; transformers of a git branch has no version here."""
    return f"torch {versions.get('torch', 'nightly')}, transformers {versions.get('transformers', 'main')}"
