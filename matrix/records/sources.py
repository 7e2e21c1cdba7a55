"""Runs from wherever they lie: a folder of records, one file, or a git revision of either."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matrix.errors import ExitCode, UserError
from matrix.records import files, parquet
from matrix.records.lines import CellRun

PUBLISHED = "reports/records.parquet"
LINES = "reports/records"
"""Where revisions before the Parquet file hold their records, one file of JSON lines a cell."""

_HISTORY = f"git log --oneline -- {PUBLISHED} {LINES}"


def read_every(*sources: Path) -> list[CellRun]:
    """Every run of some files and of all files below some folders, also earlier ones of the same cell.

    Args:
        sources: folders of `*.jsonl` and `*.parquet` files, or such files.

    Raises:
        UserError: there is no record, or some files are bad: the error names all of them, a line each.
    """
    runs, bad = read_good(*sources)
    if bad:
        raise together(bad)
    return runs


def together(bad: Sequence[UserError]) -> UserError:
    """One error for some bad files, at least one: a line each."""
    lines = [bad[0].message, *(f"error: {each.message}" for each in bad[1:])]
    return UserError("\n".join(lines), bad[0].next_command, bad[0].exit_code)


def read_good(*sources: Path) -> tuple[list[CellRun], list[UserError]]:
    """Every run of the files that are good, and an error for each of the others.

    Raises:
        UserError: there is no record at all.
    """
    paths = [path for source in sources for path in _below(source)]
    if not paths:
        names = " and ".join(str(source) for source in sources)
        message = f"{names} holds no record (*.jsonl, *.parquet)"
        raise UserError(message, "python -m matrix run --tier smoke", ExitCode.EMPTY)
    runs: list[CellRun] = []
    bad: list[UserError] = []
    for path in paths:
        try:
            runs += _read(path)
        except UserError as error:
            bad.append(error)
    return runs, bad


def latest(runs: Iterable[CellRun]) -> list[CellRun]:
    """One run a cell, the one that started last, ordered by cell id."""
    chosen: dict[str, CellRun] = {}
    for run in sorted(runs, key=lambda run: (run.cell, run.environment.started or "")):
        chosen[run.cell] = run
    return list(chosen.values())


def read_latest(source: Path | str) -> list[CellRun]:
    """The latest run of each cell of a folder, a file, or a git revision (`HEAD~1`, `v1:reports/records`).

    A revision without a path is read where it holds its records: the Parquet file, or before that the folder of lines.

    Raises:
        UserError: it is none of these, holds no record, or holds a malformed one.
    """
    path = Path(source)
    if path.exists():
        return latest(read_every(path))
    revision, _, inside = str(source).partition(":")
    if revision.startswith("-"):
        raise UserError(f"{revision} is no folder, no file and no git revision", _HISTORY)
    archive = _archive(revision, (inside,) if inside else (PUBLISHED, LINES))
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            # Python up to 3.11.3 has no filters.
            options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(temporary, **options)  # noqa: S202 - git has made it, so nothing in it leaves the folder
        return latest(read_every(Path(temporary)))


def _below(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted([*source.rglob("*.jsonl"), *source.rglob("*.parquet")])
    return [source] if source.exists() else []


def _read(path: Path) -> list[CellRun]:
    if path.suffix == ".parquet":
        return parquet.read(path)
    run = files.read(path)
    if path.stem != run.cell:
        # Copied by hand under another name, it would stand for a cell in which nobody looks for it.
        raise UserError(
            f"{path} holds the record of {run.cell}: its name is expected to be {run.cell}.jsonl", f"ls -l {path}"
        )
    return [run]


def _archive(revision: str, paths: tuple[str, ...]) -> bytes:
    """The first of some paths that a git revision has, as a tar."""
    reason = ""
    for path in paths:
        command = ["git", "archive", "--format=tar", revision, "--", path]
        try:
            return subprocess.run(command, check=True, capture_output=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            words = getattr(error, "stderr", b"") or str(error).encode()
            reason = " ".join(words.decode(errors="replace").strip().splitlines()[-1:])
    message = f"{revision} is no folder, no file and no git revision with {' or '.join(paths)}: {reason}"
    raise UserError(message, _HISTORY)
