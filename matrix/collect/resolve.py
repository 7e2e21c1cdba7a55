"""From a cell to the exact versions it installs, remembered so that a second run needs no network."""

from __future__ import annotations

import hashlib
import json
import re
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from matrix.cells.axes import Axes
from matrix.cells.cell import MOVING, Cell, minor_of
from matrix.collect import steps, uv
from matrix.errors import MakingError, UnresolvedError
from matrix.paths import Paths

FRESH_FOR = 7 * 24 * 3600.0
"""Seconds after which the index is asked for newer patches. Without a network the older answer is used."""

TRANSFORMERS_MAIN = "git+https://github.com/huggingface/transformers@main"
NIGHTLY_INDEX = "https://download.pytorch.org/whl/nightly/{backend}"


@dataclass(frozen=True)
class Question:
    """What the resolver is asked: requirement lines and options; equal questions have one answer."""

    requirements: tuple[str, ...]
    options: tuple[str, ...]
    python: str
    name: str

    @property
    def key(self) -> str:
        """The file name of the answer."""
        text = json.dumps([self.requirements, self.options, self.python])
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.txt"


def question(cell: Cell, axes: Axes, paths: Paths, torch_backend: str | None, extra: tuple[str, ...] = ()) -> Question:
    """The question of a cell: its two releases, what the library and its suite need, and the packages of `extra`."""
    return Question(
        requirements=(
            *_releases(cell, axes),
            *_own_requirements(paths.root / "pyproject.toml"),
            *_beside(cell, axes),
            *extra,
        ),
        options=_options(cell, torch_backend),
        python=cell.python,
        name=cell.venv,
    )


def answer(asked: Question, paths: Paths, *, interpreter: str, fresh: bool) -> Path:
    """The file of exact versions for a question, from the cache where it is recent enough.

    Raises:
        UnresolvedError: nothing satisfies the question.
        MakingError: the index did not answer and no earlier answer is known.
    """
    path = paths.resolved / asked.key
    if path.exists() and not fresh and time.time() - path.stat().st_mtime < _lifetime(asked):
        return path
    steps.show(asked.name, "asking the package index for the newest versions that go together")
    try:
        pins = _compile(asked, interpreter, paths)
    except MakingError:
        if fresh or not path.exists():
            raise
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(pins, encoding="utf-8")
    part.replace(path)
    return path


def resolved(path: Path) -> dict[str, str]:
    """The versions of an answer, by package name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in lines)
    return {pin[1].lower(): pin[2] for pin in pins if pin}


def _compile(asked: Question, interpreter: str, paths: Paths) -> str:
    command = ["pip", "compile", "-", "--quiet", "--no-header", "--no-annotate", "--python", interpreter]
    try:
        return uv.run([*command, *asked.options], cwd=paths.root, text="\n".join(asked.requirements))
    except UnresolvedError as error:
        raise UnresolvedError(error.message, "python -m matrix plan") from error


def _lifetime(asked: Question) -> float:
    moves = any(line.startswith("transformers @") for line in asked.requirements) or "--prerelease" in asked.options
    return 0 if moves else FRESH_FOR


def _releases(cell: Cell, axes: Axes) -> tuple[str, str]:
    torch = f"torch>{axes.known('torch')[-1]}.99.dev0" if cell.torch == MOVING["torch"] else _pin("torch", cell.torch)
    if cell.transformers == MOVING["transformers"]:
        return torch, f"transformers @ {TRANSFORMERS_MAIN}"
    return torch, _pin("transformers", cell.transformers)


def _beside(cell: Cell, axes: Axes) -> tuple[str, ...]:
    return axes.extras[cell.extra] if cell.extra else ()


def _pin(package: str, value: str) -> str:
    """A minor means its newest patch; a full version means itself."""
    return f"{package}=={value}.*" if value == minor_of(value) else f"{package}=={value}"


def _own_requirements(pyproject: Path) -> tuple[str, ...]:
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return (*project["dependencies"], *project["optional-dependencies"]["check"])


def _options(cell: Cell, torch_backend: str | None) -> tuple[str, ...]:
    """The options of uv for a cell, for resolving and for installing: both must look in the same places."""
    if cell.torch != MOVING["torch"]:
        return ("--torch-backend", torch_backend) if torch_backend else ()
    index = NIGHTLY_INDEX.format(backend=torch_backend or "cpu")
    return ("--index", index, "--index-strategy", "unsafe-best-match", "--prerelease", "allow")
