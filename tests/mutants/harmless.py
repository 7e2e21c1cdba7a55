"""The mutants that are no fault, and why: rows of harmless.toml, each of which must name survivors and nothing else."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kvconform.checks.needs import lookup

FILE = Path(__file__).with_name("harmless.toml")


@dataclass(frozen=True)
class Row:
    """Mutants by a glob, and the reason why nobody can observe what they do.

    A row with `lacks`, a name such as ``package.module:Name``, is about releases without that name and no others.
    """

    mutant: str
    reason: str
    lacks: str = ""

    @property
    def is_about_here(self) -> bool:
        """Whether the row is about this release."""
        return not self.lacks or lookup(self.lacks) is None


@dataclass(frozen=True)
class Problems:
    """Survivors without a row, and what to tell about those and about rows that are wrong."""

    unexplained: tuple[str, ...]
    lines: tuple[str, ...]


def load(path: Path = FILE) -> list[Row]:
    """The rows of a file.

    Raises:
        ValueError: a row without a mutant or a reason, or one that lacks what is no name of a module's.
    """
    rows = [Row(**row) for row in tomllib.loads(path.read_text("utf-8")).get("harmless", [])]
    for row in rows:
        if not row.mutant or not row.reason:
            raise ValueError(f"{path.name}: {row} needs a mutant and a reason")
        if row.lacks and not all(row.lacks.partition(":")):
            raise ValueError(f"{path.name}: {row} has to write what is lacking as module:Name")
    return rows


def problems(rows: Iterable[Row], known: Iterable[str], judged: set[str], survived: set[str]) -> Problems:
    """What is wrong: a survivor that no row explains, a row whose mutants are killed, a row that explains nothing.

    Args:
        rows: of harmless.toml; those about other releases explain nothing here.
        known: every mutant of this release; a row that names none of them is about another release.
        judged: those that ran.
        survived: those of them that no check noticed.
    """
    known, explained, lines = set(known), set(), []
    for row in rows:
        if not row.is_about_here:
            continue
        mine = {name for name in known if fnmatch.fnmatchcase(name, row.mutant)}
        killed = sorted(mine & judged - survived)
        explained |= mine
        if killed:
            lines.append(
                f"harmless.toml: {row.mutant} is no survivor: {', '.join(killed[:3])} is killed: narrow the row"
            )
    unexplained = tuple(sorted(survived - explained))
    lines += [
        f"{name} survived: ask a new question, or say in harmless.toml why it is no fault" for name in unexplained
    ]
    return Problems(unexplained, tuple(lines))
