"""Records on their way: what a machine is given of earlier answers, and what it gives back."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from matrix.collect.session import LEFT, settle
from matrix.errors import UserError
from matrix.records import files

SUFFIXES = (".jsonl", ".jsonl.interrupted", f".jsonl.{LEFT}")
"""The records that a cell can have; `matrix.collect.session` tells what each is."""


def collect(folder: Path, cells: Iterable[str], unless: Mapping[str, int] | None = None) -> dict[str, bytes]:
    """The records of some cells, compressed, by file name; without those that are as they were.

    Args:
        folder: where they lie.
        cells: ids.
        unless: what `stamps` told before; files that did not change since are left out.
    """
    names = [f"{cell}{suffix}" for cell in cells for suffix in SUFFIXES]
    changed = [name for name in names if _stamp(folder / name) not in (None, (unless or {}).get(name))]
    return {name: zlib.compress((folder / name).read_bytes()) for name in changed}


def stamps(folder: Path, cell: str) -> dict[str, int]:
    """When each record of a cell was written; `collect` compares with it."""
    found = {name: _stamp(folder / name) for name in (f"{cell}{suffix}" for suffix in SUFFIXES)}
    return {name: stamp for name, stamp in found.items() if stamp is not None}


def receive(folder: Path, given: Mapping[str, bytes]) -> None:
    """A machine takes earlier answers; what it has itself and began later stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, packed in given.items():
        path, content = folder / name, zlib.decompress(packed)
        if not path.exists() or _began(path.read_bytes()) < _began(content):
            path.write_bytes(content)


def deliver(final: Path, given: Mapping[str, bytes]) -> Path | None:
    """The run takes what a machine recorded of a cell, and puts it where a session of this machine would have.

    Returns:
        Where the record lies, or None where there is none.
    """
    part = final.with_suffix(".jsonl.part")
    part.unlink(missing_ok=True)
    placed: Path | None = None
    for packed in given.values():
        final.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(zlib.decompress(packed))
        if _is_unresolved(part):
            # What the machine says to that stands in its session; it wrote the record only if it is a fact.
            part.replace(final)
            placed = final
        else:
            placed = settle(part, final) or placed
    return placed


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _began(content: bytes) -> str:
    """When the run of a record began, empty where it does not tell."""
    try:
        return str(json.loads(content.partition(b"\n")[0]).get("started") or "")
    except (ValueError, AttributeError):
        return ""


def _is_unresolved(path: Path) -> bool:
    try:
        return files.read(path).unresolved is not None
    except UserError:
        return False
