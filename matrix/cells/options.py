"""What can be asked of a cell: the options after `--` of the nox session and of `python -m matrix run`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from matrix.cells.cell import DEFAULT_PYTHON, DEVICES
from matrix.errors import UserError
from matrix.paths import Paths

DEFAULT_SUBJECTS = ("kvconform", "native")
"""Asked of every cell, whatever else a suite asks by default; a record without them is not published."""
EVERY_SUBJECT = (*DEFAULT_SUBJECTS, "kvconform with patches")
"""What the present suite asks by default on every release."""


@dataclass(frozen=True)
class CellOptions:
    """One request. The defaults ask everything, and only the answer to everything can be published."""

    keyword: str | None = None
    subjects: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    device: str = "auto"
    torch_backend: str | None = None
    fresh: bool = False
    rerun: bool = False
    timeout: float | None = None
    jobs: int | None = None
    python: str = DEFAULT_PYTHON
    extra: str = ""
    records: Path | None = None

    @property
    def partial(self) -> bool:
        """Whether less, or something else, is asked than the cell's published record holds."""
        return bool(self.keyword or self.categories or self.subjects)

    def asks(self, subjects: Sequence[str]) -> bool:
        """Whether a record of these subjects is what is asked for."""
        if self.subjects:
            return tuple(subjects) == self.subjects
        return set(DEFAULT_SUBJECTS) <= set(subjects)

    def lacks(self, subjects: Sequence[str]) -> list[str]:
        """The subjects that are asked for and that a record of these subjects does not have."""
        return [name for name in self.subjects or EVERY_SUBJECT if name not in subjects]

    def folder(self, paths: Paths) -> Path:
        """Where the answer goes: one to less than everything never stands in for the cell's record."""
        return self.records or (paths.partial if self.partial else paths.records)

    def to_argv(self) -> list[str]:
        """The options as text that `parse` reads back."""
        argv: list[str] = []
        for flag, values in (("--subject", self.subjects), ("--category", self.categories)):
            argv += [f"{flag}={value}" for value in values]
        pairs = {
            "-k": self.keyword,
            "--torch-backend": self.torch_backend,
            "--timeout": self.timeout,
            "--jobs": self.jobs,
            "--records": self.records,
            "--device": None if self.device == "auto" else self.device,
            "--python": None if self.python == DEFAULT_PYTHON else self.python,
            "--extra": self.extra or None,
        }
        for flag, value in pairs.items():
            argv += [] if value is None else [f"{flag}={value}" if flag.startswith("--") else f"{flag}{value}"]
        flags = {"--fresh": self.fresh, "--rerun": self.rerun}
        return [*argv, *(flag for flag, given in flags.items() if given)]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"{self.prog} --help")


def add_cell_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a cell to a parser; `matrix run` has the same ones."""
    parser.add_argument(
        "-k",
        dest="keyword",
        metavar="EXPR",
        help="checks that match, as pytest reads it; an id; a check",
    )
    parser.add_argument(
        "--subject",
        dest="subjects",
        action="append",
        default=[],
        help="kvconform, native, exporter or module:attribute; may repeat",
    )
    parser.add_argument(
        "--category",
        dest="categories",
        action="append",
        default=[],
        help="only this category; may repeat. onnx and executorch bring packages of their own and run only when named",
    )
    parser.add_argument(
        "--device", choices=("auto", *DEVICES), default="auto", help="auto: cuda where a driver answers"
    )
    parser.add_argument(
        "--torch-backend", metavar="NAME", help="uv's --torch-backend: cpu, cu128, auto, ... (default: PyPI's wheels)"
    )
    parser.add_argument("--fresh", action="store_true", help="resolve again, rebuild the environment, ask every check")
    parser.add_argument("--rerun", action="store_true", help="ask every check, also those whose answer still holds")
    parser.add_argument("--timeout", type=_positive, metavar="SECONDS", help="limit of one check")
    parser.add_argument(
        "--python", metavar="X.Y", help=f"the cell's interpreter (that of its tier, else {DEFAULT_PYTHON})"
    )
    parser.add_argument("--extra", metavar="NAME", help="install this beside: optree")
    parser.add_argument("--records", type=Path, metavar="DIR", help="where the record goes instead of .cache/records")


def parse(argv: Sequence[str]) -> CellOptions:
    """Read the options after `--`.

    Raises:
        UserError: an option is unknown or its value is wrong.
    """
    return from_namespace(_parser().parse_args(list(argv)))


def help_text() -> str:
    """The options after `--`, for people."""
    return _parser().format_help()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nox -s conformance --", add_help=False)
    add_cell_options(parser)
    parser.add_argument("--jobs", type=int, metavar="N", help="worker processes in the cell")
    parser.add_argument("--help", action="store_true", help="show this and run nothing")
    return parser


def from_namespace(found: argparse.Namespace) -> CellOptions:
    """The cell's part of parsed arguments."""
    return CellOptions(
        keyword=found.keyword,
        subjects=tuple(found.subjects),
        categories=tuple(found.categories),
        device=found.device,
        torch_backend=found.torch_backend,
        fresh=found.fresh,
        rerun=found.rerun,
        timeout=found.timeout,
        jobs=getattr(found, "jobs", None),
        python=found.python or DEFAULT_PYTHON,
        extra=found.extra or "",
        records=found.records.resolve() if found.records else None,
    )


def device_here(asked: str) -> str:
    """The device that a request means on this machine: `auto` is cuda where NVIDIA's driver answers."""
    if asked != "auto":
        return asked
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "cpu"
    listing = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=30)
    return "cuda" if listing.returncode == 0 and "GPU" in listing.stdout else "cpu"


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value
