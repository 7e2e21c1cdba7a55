"""The non-passes that are expected: `matrix/data/portability.toml` read."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from packaging.specifiers import SpecifierSet

from matrix.cells.cell import Cell, minor_of
from matrix.cells.selectors import braces
from matrix.errors import UserError
from matrix.paths import DATA

KNOWN_TOML = DATA / "portability.toml"
_AXES = ("saved_torch", "saved_transformers", "loaded_torch", "loaded_transformers")


@dataclass(frozen=True)
class Known:
    """An expected non-pass: which programs and pairs, what they answer, why, and whose fault it is."""

    program: str
    question: str
    status: str
    reason: str
    fault: str
    specifiers: Mapping[str, str] = field(default_factory=dict)

    def covers(self, program: str, question: str, saver: Cell, loader: Cell) -> bool:
        """Whether the row is about a question to a pair."""
        values = dict(zip(_AXES, (saver.torch, saver.transformers, loader.torch, loader.transformers), strict=True))
        return (
            any(fnmatchcase(program, pattern) for pattern in braces(self.program))
            and question in braces(self.question)
            and all(SpecifierSet(text).contains(minor_of(values[axis])) for axis, text in self.specifiers.items())
        )


def load_known(path: Path = KNOWN_TOML) -> tuple[Known, ...]:
    """Read the expected non-passes.

    Raises:
        UserError: the file is malformed.
    """
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("expected", [])
        return tuple(
            Known(
                program=row["program"],
                question=row["question"],
                status=row["status"],
                reason=row["reason"],
                fault=row["fault"],
                specifiers={axis: row[axis] for axis in _AXES if axis in row},
            )
            for row in rows
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise UserError(f"{path.name} cannot be read: {error!r}", f"git diff -- matrix/data/{path.name}") from error
