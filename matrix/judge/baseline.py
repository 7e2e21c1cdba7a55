"""The expected non-passes: one row says which checks, where, how they end, why, and whose fault it is."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from matrix.cells.cell import Cell
from matrix.errors import UserError
from matrix.paths import DATA
from matrix.records.lines import WRONG, CellRun, Environment, MalformedError, Record, Status, take

DEFAULT = DATA / "baseline.toml"
OURS = "kvconform"
"""The subject that a row is about unless it says otherwise."""
PATCHED = "kvconform with patches"
"""The subject that enters the patches of torch and transformers beside the registration."""
OWN = (OURS, PATCHED)
"""The subjects whose unexpected non-passes are regressions."""
NATIVE = "native"
"""The subject that registers nothing beyond what transformers does by itself."""

Fault = Literal["torch", "transformers", "kvconform"]


@dataclass(frozen=True)
class BaselineRow:
    """One row of `baseline.toml`; see the comment at its top."""

    check: str
    status: tuple[Status, ...]
    reason: str
    fault: Fault
    subject: str = OURS
    torch: str = ""
    transformers: str = ""
    device: str = ""
    link: str = ""
    patch: str = ""

    def covers(self, environment: Environment) -> bool:
        """Whether the row speaks about a cell."""
        cell = Cell.parse(environment.cell)
        return (
            self.device in ("", cell.device)
            and _within(self.torch, cell.torch, environment.torch)
            and _within(self.transformers, cell.transformers, environment.transformers)
        )

    def names(self, record: Record) -> bool:
        """Whether the row speaks about a check of a subject."""
        return self.is_about(record.subject) and glob(self.check).fullmatch(record.id) is not None

    def is_about(self, subject: str) -> bool:
        """Whether the row speaks about a subject: its own, and ours with patches where no patch heals what it names."""
        return subject == self.subject or (subject == PATCHED and self.subject == OURS and not self.patch)

    @property
    def failure(self) -> str:
        """The page of docs/known-failures that the row links, `vmap-masks`, or an empty text."""
        inside = self.link.startswith("docs/known-failures/")
        return self.link.removeprefix("docs/known-failures/").removesuffix(".md") if inside else ""

    def to_json(self) -> dict[str, Any]:
        """The row as TOML and JSON hold it, without what it leaves open."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: list(value) if name == "status" else value for name, value in values.items() if value}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> BaselineRow:
        """The inverse of `to_json`.

        Raises:
            MalformedError: a key is unknown, missing, or holds what it may not.
        """
        known = [item.name for item in fields(cls)]
        for name in row:
            if name not in known:
                raise MalformedError(f'"{name}" is not a key of a row; the keys are {", ".join(known)}')
        texts = {name: take(row, name, str).strip() for name in row if name != "status"}
        for name in ("check", "reason", "fault"):
            if not texts.get(name):
                raise MalformedError(f'"{name}" is missing or empty')
        _check_texts(texts)
        return cls(status=_statuses(take(row, "status", str, list)), **texts)


@dataclass(frozen=True)
class Baseline:
    """Every expected non-pass."""

    rows: tuple[BaselineRow, ...] = ()

    def covering(self, run: CellRun) -> list[BaselineRow]:
        """The rows that speak about the cell of a run."""
        return [row for row in self.rows if row.covers(run.environment)]


def load_baseline(path: Path = DEFAULT) -> Baseline:
    """Read `baseline.toml`.

    Raises:
        UserError: the file is no TOML, or a row is malformed; the message names the row and the key.
    """
    edit = f"edit {path}; its comment shows a row"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}", edit) from None
    rows = document.pop("expected", [])
    if document or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: only [[expected]] rows may stand here, not {', '.join(document) or 'expected'}", edit)
    return Baseline(tuple(_row(path, number, row, edit) for number, row in enumerate(rows, 1)))


def _row(path: Path, number: int, row: dict[str, Any], edit: str) -> BaselineRow:
    try:
        return BaselineRow.from_json(row)
    except MalformedError as error:
        about = f" ({row['check']})" if "check" in row else ""
        raise UserError(f"{path}: row {number}{about}: {error}", edit) from None


@functools.cache
def glob(pattern: str) -> re.Pattern[str]:
    """The expression of a check glob: `*`, `?` and `{a,b}`; brackets stand for themselves, since ids hold them.

    Raises:
        MalformedError: a brace is not closed.
    """
    if pattern.count("{") != pattern.count("}"):
        raise MalformedError(f'"check" is "{pattern}": a brace is not closed')
    special = {"*": ".*", "?": ".", "{": "(?:", "}": ")"}
    depth, parts = 0, []
    for letter in pattern:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        parts.append("|" if letter == "," and depth else special.get(letter, re.escape(letter)))
    try:
        return re.compile("".join(parts))
    except re.error:
        raise MalformedError(f'"check" is "{pattern}": braces out of order') from None


def minor(axis: str, resolved: str | None) -> Version | None:
    """The minor that a cell stands for: 2.5 for the axis values 2.5 and 2.5.1; for a nightly, that of what it got."""
    for text in (axis, resolved or ""):
        try:
            release = Version(text).release
        except InvalidVersion:
            continue
        return Version(".".join(str(part) for part in (*release, 0)[:2]))
    return None


def _within(specifier: str, axis: str, resolved: str | None) -> bool:
    if not specifier:
        return True
    version = minor(axis, resolved)
    return version is not None and SpecifierSet(specifier).contains(version, prereleases=True)


def _check_texts(texts: Mapping[str, str]) -> None:
    """Refuse values that would match nothing, match by accident, or do harm on a page."""
    glob(texts["check"])
    if texts["fault"] not in get_args(Fault):
        raise MalformedError(f'"fault" is "{texts["fault"]}", expected one of {", ".join(get_args(Fault))}')
    for name in ("torch", "transformers"):
        _check_specifier(name, texts.get(name, ""))
    link = texts.get("link", "")
    if link and not link.startswith(("https://", "http://", "docs/known-failures/")):
        raise MalformedError(f'"link" is "{link}", expected an http address or a page of docs/known-failures/')
    if texts.get("patch") and texts.get("subject", OURS) != OURS:
        raise MalformedError(f'"patch" is about "{OURS}" alone, and this row is about "{texts["subject"]}"')


def _check_specifier(name: str, text: str) -> None:
    try:
        specifiers = SpecifierSet(text)
    except InvalidSpecifier as error:
        raise MalformedError(f'"{name}" is "{text}": {error}') from None
    for specifier in specifiers:
        # A patch release would silently cover nothing: cells are named by minors.
        if len(specifier.version.removesuffix(".*").split(".")) != 2:  # noqa: PLR2004
            raise MalformedError(f'"{name}" is "{text}": rows speak about minors, such as "<2.7"')


def _statuses(value: str | list[Any]) -> tuple[Status, ...]:
    statuses = [value] if isinstance(value, str) else value
    for status in statuses or [""]:
        if status not in WRONG:
            raise MalformedError(f'"status" is "{status}", expected one of {", ".join(sorted(WRONG))}')
    return tuple(statuses)
