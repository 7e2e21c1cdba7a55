"""The known failures: the pages of docs/known-failures, what messages say of them, and where records show them."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from matrix.cells.cell import Cell, version_key
from matrix.errors import UserError
from matrix.judge.baseline import BaselineRow
from matrix.judge.causes import Cause
from matrix.paths import DATA, ROOT

DEFAULT = DATA / "failures.toml"
PAGES = ROOT / "docs" / "known-failures"


@dataclass(frozen=True)
class Failure:
    """One known failure.

    Attributes:
        page: the name of its page, `vmap-masks`.
        title: the page's first line.
        fault: torch or transformers.
        text: the whole page, as Markdown.
        fix: what to do; `code` are lines to paste, if any.
        says: what messages say of it, as `failures.toml` has it.
        instead: for some attributes, what to write in their place.
        rows: the baseline rows that link the page.
        cells: the cells in which a check shows it, by subject.
        always: whether every release has it, those too in which no check shows it.
    """

    page: str
    title: str
    fault: str
    text: str
    fix: str
    code: str
    says: Sequence[Mapping[str, Any]]
    instead: Mapping[str, str]
    rows: tuple[BaselineRow, ...]
    cells: Mapping[str, tuple[Cell, ...]]
    always: bool = False

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of releases in which a check shows it, by torch and then transformers."""
        cells = {(cell.torch, cell.transformers) for each in self.cells.values() for cell in each}
        return sorted(cells, key=lambda pair: (version_key(pair[0]), version_key(pair[1])))

    def first_bad(self, releases: Mapping[str, Sequence[str]]) -> str:
        """The first release with the failure, "transformers 4.53"; an empty text where none before it was measured."""
        if self.always:
            return ""
        lower = [_bound(row, self.fault, lowest=True) for row in self.rows]
        if lower and all(lower):
            return f"{self.fault} {min(lower, key=version_key)}"
        seen = [pair[self.fault != "torch"] for pair in self.pairs]
        first = min(seen, key=version_key, default="")
        return f"{self.fault} {first}" if first and first != releases[self.fault][0] else ""

    def first_good(self, releases: Mapping[str, Sequence[str]]) -> str:
        """The releases without it, "transformers 5.0, or torch 2.9"; an empty text where there is none yet."""
        found = []
        for axis in (self.fault, "transformers" if self.fault == "torch" else "torch"):
            upper = [_bound(row, axis, lowest=False) for row in self.rows]
            upper = [_after(text, releases[axis]) for text in upper]
            if upper and all(upper):
                found.append(f"{axis} {max(upper, key=version_key)}")
        return ", or ".join(found)


def load_failures(
    rows: Iterable[BaselineRow],
    causes: Iterable[tuple[Cell, Sequence[Cause]]],
    path: Path = DEFAULT,
    pages: Path = PAGES,
) -> list[Failure]:
    """Read `failures.toml` and the pages, and find where the records show each.

    Raises:
        UserError: a row names no page, a page has no row, or one of them is not what it should be.
    """
    rows, causes = list(rows), list(causes)
    try:
        listed = tomllib.loads(path.read_text(encoding="utf-8"))["failure"]
        names = [row["page"] for row in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: {error}", f"edit {path}; its comment shows a row") from None
    there = {each.stem for each in pages.glob("*.md")} - {"index"}
    if odd := sorted(there.symmetric_difference(names)):
        raise UserError(f"{path} and {pages} do not name the same failures: {', '.join(odd)}", f"edit {path}")
    return [_failure(row, pages, rows, causes) for row in listed]


def _failure(
    row: Mapping[str, Any], pages: Path, rows: Sequence[BaselineRow], causes: Sequence[tuple[Cell, Sequence[Cause]]]
) -> Failure:
    page, recorded = row["page"], row.get("recorded", "")
    text = (pages / f"{page}.md").read_text(encoding="utf-8")
    fault = re.search(r"^Fault: (\w+)\.$", text, re.MULTILINE)
    if not text.startswith("# ") or fault is None:
        raise UserError(f"{pages / page}.md has no title, or no line such as: Fault: torch.", f"edit {pages}/{page}.md")
    cells: dict[str, dict[Cell, None]] = {}
    for cell, each in causes:
        for cause in each:
            if cause.page == page or (recorded and not cause.row and recorded in cause.message):
                cells.setdefault(cause.subject, {})[cell] = None
    return Failure(
        page=page,
        title=text.splitlines()[0].removeprefix("# "),
        fault=fault[1],
        text=text,
        fix=row["fix"],
        code=row.get("code", "").strip("\n"),
        says=row.get("says", []),
        instead=row.get("instead", {}),
        rows=tuple(each for each in rows if each.link == f"docs/known-failures/{page}.md"),
        cells={subject: tuple(found) for subject, found in cells.items()},
        always=row.get("always", False),
    )


def _bound(row: BaselineRow, axis: str, *, lowest: bool) -> str:
    """The release at which a row begins, or after which it ends: ">=4.53,<5.0" begins at 4.53 and ends before 5.0."""
    for one in SpecifierSet(row.torch if axis == "torch" else row.transformers):
        version = one.version.removesuffix(".*")
        if one.operator == "==":
            return version if lowest else f"after {version}"
        if one.operator == (">=" if lowest else "<"):
            return version
    return ""


def _after(text: str, releases: Sequence[str]) -> str:
    """The release that "after 4.44" means."""
    if not text.startswith("after "):
        return text
    later = [release for release in releases if version_key(release) > version_key(text.removeprefix("after "))]
    return later[0] if later else ""


def ranges(pairs: Iterable[tuple[str, str]], transformers: Sequence[str]) -> str:
    """Pairs as a sentence: "torch 2.7 with transformers 4.53 to 4.55; torch 2.8 with 4.55, 4.57"."""
    order = {release: number for number, release in enumerate(transformers)}
    parts: list[str] = []
    for torch, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        spans: list[list[str]] = []
        for _, release in group:
            if spans and order.get(release, -9) == order.get(spans[-1][-1], -99) + 1:
                spans[-1].append(release)
            else:
                spans.append([release])
        releases = ", ".join(span[0] if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans)
        parts.append(f"torch {torch} with {'' if parts else 'transformers '}{releases}")
    return "; ".join(parts)
