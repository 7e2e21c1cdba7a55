"""`optin.toml` read: which packages join a cell's environment when an opt-in category is asked for."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from matrix.cells.axes import Axes
from matrix.cells.cell import MOVING, Cell, minor_of
from matrix.errors import UnresolvedError, UserError
from matrix.paths import DATA

OPTIN_TOML = DATA / "optin.toml"
SCHEMA = 1
CATEGORIES = ("onnx", "executorch", "more-models", "patches", "generate", "architectures", "aoti")
"""The opt-in categories: no run asks them unless it names them."""


@dataclass(frozen=True)
class Row:
    """What a category installs with some minors of torch."""

    category: str
    torch: str
    requirements: tuple[str, ...]
    note: str = ""

    def takes(self, minor: str) -> bool:
        """Whether a torch minor is one of the row's."""
        return SpecifierSet(self.torch).contains(minor)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """A table of the file; raises KeyError, TypeError or InvalidSpecifier."""
        row = cls(data["category"], data["torch"], tuple(data["requirements"]), data["note"])
        SpecifierSet(row.torch)
        return row


def load(path: Path = OPTIN_TOML) -> tuple[Row, ...]:
    """Read the file.

    Raises:
        UserError: it is missing or malformed.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise UserError(f"{path.name} has schema {data['schema']!r}, this reads {SCHEMA}", f"git diff -- {path}")
        return tuple(Row.from_json(row) for row in data["packages"])
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, InvalidSpecifier) as error:
        raise UserError(f"{path.name} cannot be read: {error!r}", f"git diff -- matrix/data/{path.name}") from error


def requirements(
    cell: Cell, categories: Iterable[str], axes: Axes, rows: tuple[Row, ...] | None = None
) -> tuple[str, ...]:
    """What the asked categories add to a cell: nothing, for categories that every cell has.

    Raises:
        UnresolvedError: no release of a category's package goes with the cell's torch.
    """
    table = load() if rows is None else rows
    minor = axes.known("torch")[-1] if cell.torch == MOVING["torch"] else minor_of(cell.torch)
    added: list[str] = []
    for category in dict.fromkeys(categories):
        if category not in {row.category for row in table}:
            continue
        row = next((row for row in table if row.category == category and row.takes(minor)), None)
        if row is None:
            message = f"no release of what category {category} needs goes with torch {minor} (matrix/data/optin.toml)"
            raise UnresolvedError(message, "python -m matrix run --category CATEGORY, with another torch")
        added += row.requirements
    return tuple(added)
