"""What noxfile.py needs and nox does not have: exact exit codes, sessions for pinned versions, errors that help."""

from __future__ import annotations

import ast
import atexit
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from matrix.cells.axes import Axes
from matrix.cells.cell import MOVING, Cell
from matrix.cells.ranges import check_value
from matrix.errors import ExitCode, UserError

_CODES = "KVCONFORM_NOX_CODES"
_SEVERITY = (ExitCode.INTERRUPTED, ExitCode.USAGE, ExitCode.REGRESSION, ExitCode.UNRESOLVED, ExitCode.EMPTY)


def worst(codes: Iterable[int]) -> int:
    """The code that stands for many: interrupted, then usage, regression, unresolved, empty."""
    present = set(codes)
    return next((int(code) for code in _SEVERITY if code in present), ExitCode.REGRESSION if present - {0} else 0)


class ExitCodes:
    """Makes nox end with the documented code of its sessions.

    nox turns every failure into exit code 1 (measured with 2026.10). The codes of all sessions, also of those that
    `nox -j` runs in processes of their own, go to one file; when nox is done, after its summary and report, the
    process that began it ends with the worst of them.
    """

    def __init__(self) -> None:
        self._own: list[int] = []
        given = os.environ.get(_CODES)
        self._began = given is None
        self._file = Path(given) if given else Path(tempfile.mkdtemp(prefix="kvconform-")) / "codes"
        os.environ[_CODES] = str(self._file)
        atexit.register(self._finish)

    def add(self, code: int) -> None:
        """Remember the code of a session."""
        self._own.append(code)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{code}\n")

    def _finish(self) -> None:
        codes = self._own
        if self._began:
            os.environ.pop(_CODES, None)
            if self._file.exists():
                codes = [int(line) for line in self._file.read_text(encoding="utf-8").split()]
                self._file.unlink()
            self._file.parent.rmdir()
        code = worst(codes)
        if code:
            # The interpreter has its exit code already (1, or 130); only leaving now can change it.
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def pairs(axes: Axes, argv: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """The torch, transformers and tags of each session.

    There is one for every pair of known releases, for the moving values, and for the full versions that the command
    line names.

    Raises:
        UserError: the command line names a release that does not exist.
    """
    torches = [*axes.known("torch"), MOVING["torch"]]
    transformers = [*axes.known("transformers"), MOVING["transformers"]]
    every = [(torch, release) for torch in torches for release in transformers]
    asked = [pair for pair in requested(axes, argv) if pair not in every]
    return [(torch, release, _tags(axes, torch, release)) for torch, release in [*every, *dict.fromkeys(asked)]]


def requested(axes: Axes, argv: Sequence[str]) -> list[tuple[str, str]]:
    """The cells that a nox command line names, checked, so that a typo is answered with the nearest release."""
    texts = [text for text in [*argv, os.environ.get("NOXSESSION", "")] if text.lstrip().startswith("conformance(")]
    return [_checked(axes, text) for text in texts]


def _checked(axes: Axes, text: str) -> tuple[str, str]:
    example = "python -m nox -s \"conformance(torch='2.5', transformers='4.53')\""
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise UserError(f"{text!r} is no session", example) from None
    keywords = call.keywords if isinstance(call, ast.Call) else []
    if [keyword.arg for keyword in keywords] != ["torch", "transformers"]:
        raise UserError(f"{text!r} is no session: name torch, then transformers", example)
    values = [
        ast.literal_eval(keyword.value) if isinstance(keyword.value, ast.Constant) else None for keyword in keywords
    ]
    if not all(isinstance(value, str) for value in values):
        raise UserError(f"{text!r} is no session: versions are quoted, since 2.10 as a number is 2.1", example)
    torch, transformers = (str(value) for value in values)
    check_value("torch", torch, axes.known("torch"))
    check_value("transformers", transformers, axes.known("transformers"))
    return torch, transformers


def _tags(axes: Axes, torch: str, transformers: str) -> list[str]:
    cell = Cell(torch, transformers, axes.python)
    return [] if axes.why_not(cell) else axes.tiers_of(cell)
