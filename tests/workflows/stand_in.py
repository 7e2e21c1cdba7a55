"""Stands in for the commands of a workflow that need a network or hours; any other is run as it is.

usage: stand_in.py NAME [ARGUMENT]..., NAME being `python` or `gh`

Variables: STORE is the folder where `gh` keeps releases; MODE is what a fake cell does; a tier means the one cell TIER.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

TIER = ["--torch", "2.5", "--transformers", "4.53"]
WHEEL = "kvconform-9.9.9-py3-none-any.whl"


def main(name: str, *arguments: str) -> int:
    if name == "gh":
        return gh(*arguments)
    line = one_cell(list(arguments))
    if name == "real-python" and "--torch-backend" in line:
        # PyPI's wheels: the index of PyTorch is another one, which a machine may not reach.
        at = line.index("--torch-backend")
        line = [*line[:at], *line[at + 2 :]]
    if name == "python":
        code = played(line)
        if code is not None:
            return code
        line = rewritten(line)
    return subprocess.run([sys.executable, *line], check=False).returncode


def one_cell(line: list[str]) -> list[str]:
    """The arguments with one cell in place of a tier."""
    if "--tier" not in line:
        return line
    at = line.index("--tier")
    return [*line[:at], *TIER, *line[at + 2 :]]


def played(line: list[str]) -> int | None:
    """The exit code of what needs a network; None for anything else."""
    root = Path.cwd()
    if line[:3] == ["-m", "pip", "install"]:
        files = [name.partition("[")[0] for name in line[3:] if name.endswith((".txt", "]"))]
        return 0 if all(Path(name).is_file() for name in files) else 1
    if line[:2] == ["-m", "build"]:
        (root / "dist").mkdir()
        for file in (WHEEL, "kvconform-9.9.9.tar.gz"):
            (root / "dist" / file).touch()
        return 0
    if line[:2] == ["-m", "venv"]:
        made = root / line[2] / "bin"
        made.mkdir(parents=True)
        shutil.copy2(os.environ["STAND_IN"], made / "python")
        return 0
    return None


def rewritten(line: list[str]) -> list[str]:
    """What is run in place of what takes hours: a list of sessions or checks, a fake cell."""
    if line[:2] == ["-m", "nox"]:
        # A session that is not there fails.
        return ["-m", "nox", "--list", *line[2:]]
    if line[:2] == ["-m", "kvconform"]:
        # The wheel was not installed: its two packages are found here.
        os.environ["PYTHONPATH"] = os.pathsep.join([os.environ["SOURCES"], os.environ["SUITE"]])
        return [*line, "--list"] if line[2] == "check" else line
    if line[:3] == ["-m", "matrix", "run"]:
        return [str(Path.cwd() / "tests" / "matrix" / "drive_run.py"), str(Path.cwd()), os.environ["MODE"], *line[3:]]
    return line


def gh(what: str, verb: str, tag: str, *rest: str) -> int:
    assert what == "release", what
    assert os.environ["GH_TOKEN"]
    assert os.environ["GH_REPO"]
    release = Path(os.environ["STORE"]) / tag
    if verb == "view":
        return 0 if release.is_dir() else 1
    if verb == "create":
        release.mkdir(parents=True)
    elif verb == "upload":
        assert rest[1] == "--clobber"
        shutil.copy2(rest[0], release)
    elif verb == "download":
        folder = Path(rest[rest.index("--dir") + 1])
        folder.mkdir()
        shutil.copy2(release / rest[rest.index("--pattern") + 1], folder)
    else:
        raise AssertionError(verb)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
