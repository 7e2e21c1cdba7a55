"""Finds the Python that a cell runs on: this one, one on PATH, one of pyenv, or one that uv knows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from matrix.collect.uv import find_uv, variables
from matrix.errors import MakingError


def find(version: str) -> str:
    """The path of an interpreter.

    Args:
        version: "3.11", or "3.11.7" for exactly that one.

    Raises:
        MakingError: none answers to that version; the machine lacks it, which says nothing about the cell.
    """
    for candidate in _candidates(version):
        if _answers(candidate, version):
            return candidate
    raise MakingError(f"no Python {version} on this machine", "python -m matrix plan --python 3.11")


def _candidates(version: str) -> Iterator[str]:
    minor = ".".join(version.split(".")[:2])
    yield sys.executable
    found = shutil.which(f"python{minor}")
    if found:
        yield found
    # pyenv's commands on PATH work only for the versions that it has switched on; the interpreters work always.
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = sorted((root / "versions").glob(f"{minor}.*"), key=lambda folder: _patch(folder.name), reverse=True)
    yield from (str(folder / "bin" / "python") for folder in folders)
    command = [find_uv(), "python", "find", "--no-python-downloads", version]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, env=variables())
    if asked.returncode == 0:
        yield asked.stdout.strip()


def _patch(name: str) -> int:
    last = name.rpartition(".")[2]
    return int(last) if last.isdigit() else -1


def _answers(path: str, version: str) -> bool:
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    if path == sys.executable:
        found = ".".join(map(str, sys.version_info[:3]))
    else:
        try:
            asked = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return False
        found = asked.stdout.strip()
    return found == version or found.startswith(f"{version}.")
