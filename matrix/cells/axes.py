"""`cells.toml` read, checked and written: the releases, the default axes, the tiers, and why a cell cannot exist."""

from __future__ import annotations

import datetime as dt
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from matrix.cells.cell import MOVING, Cell, minor_of, version_key
from matrix.cells.ranges import expand
from matrix.errors import UserError
from matrix.paths import DATA

CELLS_TOML = DATA / "cells.toml"
SCHEMA = 1
_T = TypeVar("_T")


@dataclass(frozen=True)
class Release:
    """One minor of torch or transformers.

    `python` and `torch` are specifiers, `wheels` is a range of CPython minors ("3.9..3.13", empty for pure Python).
    """

    newest: str
    released: dt.date
    python: str
    wheels: str = ""
    torch: str = ""
    note: str = ""


@dataclass(frozen=True)
class Unresolvable:
    """A region of pairs that no resolver satisfies, and what it says."""

    torch: str
    transformers: str
    python: str
    reason: str


@dataclass(frozen=True)
class TierRow:
    """A product of ranges, and why the tier has it; `python` is a range too, `extra` one name."""

    torch: str
    transformers: str
    why: str
    python: str = ""
    extra: str = ""


@dataclass(frozen=True)
class Axes:
    """Everything `cells.toml` says."""

    python: str
    defaults: Mapping[str, tuple[str, ...]]
    torch: Mapping[str, Release]
    transformers: Mapping[str, Release]
    unresolvable: tuple[Unresolvable, ...]
    tiers: Mapping[str, tuple[TierRow, ...]]
    extras: Mapping[str, tuple[str, ...]]

    def known(self, axis: str) -> list[str]:
        """Every minor of an axis, the default ones and the others, ordered."""
        return sorted(getattr(self, axis), key=version_key)

    def product(self) -> list[Cell]:
        """The default axes multiplied."""
        axes = self.defaults
        pairs = [(t, f) for t in axes["torch"] for f in axes["transformers"]]
        return [Cell(t, f, p, d) for t, f in pairs for p in axes["python"] for d in axes["device"]]

    def tier(self, name: str) -> list[Cell]:
        """The cells of a tier, each once, in the order of versions.

        Raises:
            UserError: there is no such tier.
        """
        if name not in self.tiers:
            raise UserError(f"unknown tier {name!r}; there are {', '.join(self.tiers)}", "python -m matrix plan")
        cells = {cell for row in self.tiers[name] for cell in self._row_cells(row)}
        return sorted(cells, key=lambda cell: cell.order)

    def tiers_of(self, cell: Cell) -> list[str]:
        """The tiers that have a cell, smallest first."""
        return [name for name in self.tiers if cell in self._tier_sets()[name]]

    def why_not(self, cell: Cell) -> str | None:
        """Why a cell cannot be made, or None if nothing known speaks against it.

        A moving value is newer than every release: only its partner's Python limits apply.
        """
        reasons = (
            self._python_reason("torch", cell.torch, cell.python),
            self._python_reason("transformers", cell.transformers, cell.python),
            self._torch_reason(cell),
            self._known_reason(cell),
        )
        return next(filter(None, reasons), None)

    def _row_cells(self, row: TierRow) -> list[Cell]:
        torches = expand("torch", row.torch, self.known("torch"))
        transformers = expand("transformers", row.transformers, self.known("transformers"))
        if row.extra and row.extra not in self.extras:
            raise UserError(f"unknown extra {row.extra!r}; there are {', '.join(self.extras)}", "python -m matrix plan")
        pythons = _pythons(row.python or self.python)
        return [Cell(t, f, p, extra=row.extra) for t in torches for f in transformers for p in pythons]

    def _tier_sets(self) -> dict[str, set[Cell]]:
        # Computed once for an object that never changes; nox asks for every pair on the axes.
        cached: dict[str, set[Cell]] | None = self.__dict__.get("_sets")
        if cached is None:
            cached = {name: set(self.tier(name)) for name in self.tiers}
            object.__setattr__(self, "_sets", cached)
        return cached

    def _release(self, axis: str, value: str) -> Release | None:
        releases: Mapping[str, Release] = getattr(self, axis)
        return releases.get(minor_of(value))

    def _version(self, axis: str, value: str) -> str | None:
        """The version a value stands for: itself when full, the newest patch of a minor, None when it moves."""
        release = self._release(axis, value)
        return value if release is None or value != minor_of(value) else release.newest

    def _python_reason(self, axis: str, value: str, python: str) -> str | None:
        release = self._release(axis, value)
        if release is None:
            return None
        if not SpecifierSet(release.python).contains(python):
            return f"{axis} {value} needs Python {release.python}"
        if release.wheels and not _within(python, release.wheels):
            return f"{axis} {value} has wheels for Python {release.wheels.replace('..', ' to ')} only"
        return None

    def _torch_reason(self, cell: Cell) -> str | None:
        release = self._release("transformers", cell.transformers)
        version = self._version("torch", cell.torch)
        if release is None or version in {None, *MOVING.values()} or not release.torch:
            return None
        if SpecifierSet(release.torch).contains(str(version)):
            return None
        return f"transformers {cell.transformers} needs torch {release.torch}"

    def _known_reason(self, cell: Cell) -> str | None:
        if cell.moving:
            return None
        for row in self.unresolvable:
            asked = (
                (row.torch, self._version("torch", cell.torch)),
                (row.transformers, self._version("transformers", cell.transformers)),
                (row.python, cell.python),
            )
            if all(SpecifierSet(specifier).contains(str(version)) for specifier, version in asked):
                return row.reason
        return None


def load(path: Path = CELLS_TOML) -> Axes:
    """Read `cells.toml`.

    Raises:
        UserError: the file is missing or malformed; the message names the table and the key.
    """
    try:
        return loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"cannot read {path.name}: {error.strerror}"
        raise UserError(message, f"git checkout -- matrix/data/{path.name}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path.name} is no TOML: {error}", f"git diff -- matrix/data/{path.name}") from error
    except _MalformedError as error:
        raise UserError(f"{path.name} is malformed: {error}", f"git diff -- matrix/data/{path.name}") from error


def loads(text: str) -> Axes:
    """Read the text of a `cells.toml`."""
    data = tomllib.loads(text)
    if data.get("schema") != SCHEMA:
        raise _MalformedError(f"schema is {data.get('schema')!r}, this reads {SCHEMA}")
    axes = Axes(
        python=_of(data, "python", str, "the top"),
        defaults={name: _strings(data, "axes", name) for name in ("torch", "transformers", "python", "device")},
        torch=_releases(data, "torch"),
        transformers=_releases(data, "transformers"),
        unresolvable=tuple(
            _row(Unresolvable, row, f"unresolvable.rows[{at}]")
            for at, row in enumerate(_of(_table(data, "unresolvable"), "rows", list, "unresolvable"))
        ),
        tiers={
            name: tuple(_row(TierRow, row, f"tiers.{name}[{at}]") for at, row in enumerate(rows))
            for name, rows in _table(data, "tiers").items()
        },
        extras={name: _strings(data, "extras", name) for name in _table(data, "extras")},
    )
    _check_references(axes)
    return axes


def dumps(axes: Axes) -> str:
    """Write axes as TOML, one row a line: what `cells.toml` holds but for its comments."""
    lines = [f"schema = {SCHEMA}", f"python = {_toml(axes.python)}", "", "[axes]"]
    lines += [f"{name} = {_toml(list(values))}" for name, values in axes.defaults.items()]
    for axis in ("torch", "transformers"):
        releases: Mapping[str, Release] = getattr(axes, axis)
        absent = "torch" if axis == "torch" else "wheels"
        lines += ["", f"[{axis}]"]
        lines += [f"{_toml(minor)} = {_inline(row, leave_out=absent)}" for minor, row in releases.items()]
    lines += ["", "[unresolvable]", *_array("rows", axes.unresolvable), "", "[tiers]"]
    for name, rows in axes.tiers.items():
        lines += _array(name, rows)
    lines += ["", "[extras]", *(f"{name} = {_toml(list(lines))}" for name, lines in axes.extras.items())]
    return "\n".join(lines) + "\n"


class _MalformedError(Exception):
    pass


def _check_references(axes: Axes) -> None:
    for axis in ("torch", "transformers"):
        unknown = [value for value in axes.defaults[axis] if value not in axes.known(axis)]
        if unknown:
            raise _MalformedError(f"axes.{axis} names {unknown[0]!r}, which has no line under [{axis}]")
    for name, rows in axes.tiers.items():
        for at, row in enumerate(rows):
            try:
                axes._row_cells(row)
            except UserError as error:
                raise _MalformedError(f"tiers.{name}[{at}]: {error}") from error


def _releases(data: dict[str, Any], axis: str) -> dict[str, Release]:
    releases = {minor: _row(Release, row, f"{axis}.{minor}") for minor, row in _table(data, axis).items()}
    if not releases:
        raise _MalformedError(f"[{axis}] is empty")
    return releases


def _row(kind: type[_T], row: Any, place: str) -> _T:
    """Build a dataclass from a table, refusing unknown and missing keys, wrong types and bad specifiers."""
    if not isinstance(row, dict):
        raise _MalformedError(f"{place} is no table")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key, value in row.items():
        if key not in known:
            raise _MalformedError(f"{place} has an unknown key {key!r}; known are {', '.join(known)}")
        expected = dt.date if key == "released" else str
        if not isinstance(value, expected):
            raise _MalformedError(f"{place}.{key} is {value!r}, expected a {expected.__name__}")
    _check_specifiers(row, place, ranges=kind is TierRow)
    try:
        return kind(**row)
    except TypeError as error:
        raise _MalformedError(f"{place}: {str(error).partition(') ')[2] or error}") from error


def _check_specifiers(row: dict[str, Any], place: str, *, ranges: bool) -> None:
    for key in ("python", "torch", "transformers"):
        if ranges or key not in row:
            continue
        try:
            SpecifierSet(row[key])
        except InvalidSpecifier as error:
            raise _MalformedError(f"{place}.{key}: {error}") from error


def _of(table: dict[str, Any], key: str, kind: type[_T], place: str) -> _T:
    value = table.get(key)
    if not isinstance(value, kind):
        raise _MalformedError(f"{key} of {place} is {value!r}, expected a {kind.__name__}")
    return value


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    return _of(data, key, dict, "the top")


def _strings(data: dict[str, Any], table: str, key: str) -> tuple[str, ...]:
    values = _of(_table(data, table), key, list, table)
    if not values or not all(isinstance(value, str) for value in values):
        # 2.10 as a number would silently become 2.1.
        raise _MalformedError(f"{table}.{key} must be a list of strings, such as ['2.9', '2.10']")
    return tuple(values)


def _pythons(text: str) -> list[str]:
    """The minors of Python that a range names: "3.12..3.14", "3.10,3.12"."""
    found: list[str] = []
    for part in text.split(","):
        first, _, last = part.partition("..")
        minors = [Version(each).minor for each in (first, last or first)]
        found += [f"3.{minor}" for minor in range(minors[0], minors[1] + 1)]
    return found


def _within(python: str, wheels: str) -> bool:
    first, _, last = wheels.partition("..")
    return Version(first) <= Version(minor_of(python)) <= Version(last)


def _toml(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.date) else json.dumps(value)


def _inline(row: object, *, leave_out: str = "") -> str:
    pairs = [(field.name, getattr(row, field.name)) for field in fields(row)]  # type: ignore[arg-type]
    if isinstance(row, TierRow):
        pairs = [(name, value) for name, value in pairs if value or name not in ("python", "extra")]
    return "{ " + ", ".join(f"{name} = {_toml(value)}" for name, value in pairs if name != leave_out) + " }"


def _array(name: str, rows: tuple[object, ...]) -> list[str]:
    if not rows:
        return [f"{name} = []"]
    return [f"{name} = [", *(f"  {_inline(row)}," for row in rows), "]"]
