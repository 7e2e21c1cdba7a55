"""Results as Markdown and CSV; docs/reading-the-table.md describes the columns."""

from __future__ import annotations

import csv
import html
import io
from typing import Any

from matrix.judge.baseline import OURS, BaselineRow
from matrix.judge.findings import Finding, findings, some
from matrix.judge.tally import ALL
from matrix.records.lines import STATUSES
from matrix.render import wording
from matrix.render.grid import Grid, Place, Results

MOST_NAMES = 8
"""Checks with the same cause that Markdown names; the data and the page name them all."""
CSV_COLUMNS = (
    "cell",
    "torch",
    "transformers",
    "python",
    "device",
    "subject",
    "category",
    "state",
    *STATUSES,
    "total",
    "known",
    "complete",
)


def markdown_grid(grid: Grid, results: Results) -> str:
    """One grid: torch across, transformers down, one line a subject in each place."""
    head = ["transformers ↓ torch →", *grid.torches]
    body = [
        [f"**{release}**", *(_spot(grid.at(torch, release), results) for torch in grid.torches)]
        for release in grid.transformers
    ]
    return markdown_table([head, *body])


def markdown(results: Results) -> str:
    """The table as a document of its own."""
    parts = ["# Does my torch work with my transformers?", _introduction(results), key(results)]
    parts += [f"> {warning}" for warning in wording.warnings(results)]
    for grid in results.grids:
        parts += [f"## {grid.title}", markdown_grid(grid, results)]
    parts += ["## By category", _by_category(results)]
    words = [_cell_words(place) for place in results.places]
    parts += ["## Cell by cell", *(words if any(words) else ["Nothing."])]
    return "\n\n".join(part for part in parts if part) + "\n"


def key(results: Results) -> str:
    """How a place of the Markdown grid is read."""
    lines = ", ".join(wording.subject_name(subject) for subject in results.subjects)
    signs = (
        "✓ all pass, ≈ some fail for known reasons, ✗ or ! some fail, ◐ not everything was asked, - n/a, "
        "⊘ no install, · never measured"
    )
    return f"Line by line: {lines}. {signs}; 31/38 means that 31 of the 38 checks asked pass."


def step_summary(results: Results) -> str:
    """Markdown for the summary of a CI job: the grids, then what regressed."""
    parts = [_introduction(results)]
    parts += [f"### {grid.title}\n\n{markdown_grid(grid, results)}" for grid in results.grids]
    parts += [f"> {warning}" for warning in wording.warnings(results)]
    parts += [text for place in results.places if (text := _cell_words(place, only_ours=True))]
    return "\n\n".join(parts) + "\n"


def as_csv(results: Results) -> str:
    """One row a cell, subject and category; the category "all" holds the sums."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for place in results.places:
        for subject in results.subjects:
            for category in (ALL, *results.categories):
                writer.writerow(_csv_row(place, subject, category))
    return stream.getvalue()


def _introduction(results: Results) -> str:
    lines = [f"{wording.measured(results)}."]
    lines += [f"{wording.subject_name(name)}: {wording.headline(results, name)}." for name in results.subjects]
    return "\n".join([lines[0], "", *(f"- {line}" for line in lines[1:])])


def _by_category(results: Results) -> str:
    head = ["category", *(wording.subject_name(subject) for subject in results.subjects)]
    body = [
        [category, *(wording.breakdown(results.total(name, category)) for name in results.subjects)]
        for category in (*results.categories, ALL)
    ]
    return markdown_table([head, *body])


def _cell_words(place: Place, *, only_ours: bool = False) -> str:
    """The unexpected and the known of ours by name, the findings about others by number."""
    cell = place.cell
    title = f"### torch {cell.torch}, transformers {cell.transformers} (Python {cell.interpreter}, {cell.device})"
    run = place.run
    if run is None or (run.unresolved is not None and only_ours):
        return ""
    if run.unresolved is not None:
        return f"{title}\n\nNo install: {inline(run.unresolved)}"
    lines = [f"- {_words(cause)}" for cause in findings(place.verdicts(OURS))]
    others = sorted({subject for subject, _ in place.tallies} - {OURS})
    if not only_ours:
        lines += [f"- {wording.subject_name(subject)}: {wording.sentence(place, subject)}" for subject in others]
    return "\n".join([title, "", *lines, "", f"`{wording.nox_command(place.cell)}`"]) if lines else ""


def _words(cause: Finding) -> str:
    label = cause.label if cause.verdict in ("known", "fixed") else f"{cause.label}, {cause.verdict}"
    names = some([f"`{name}`" for name in cause.ids], MOST_NAMES)
    text = f"{label}: {names}: {inline(cause.message) or 'no message'}"
    return text + (f" **Why:** {_why(cause.row)}" if cause.row else "")


def _why(row: BaselineRow) -> str:
    # A page of ours is told from reports/, where the tables are.
    link = f" [why](../{row.link})" if row.link.startswith("docs/") else f" <{row.link}>" if row.link else ""
    return f"{inline(row.reason)} (fault: {row.fault}){link}"


def inline(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in escaped)


def _spot(place: Place, results: Results) -> str:
    run = place.run
    if run is None or run.unresolved is not None:
        return wording.short(place, OURS)
    return "<br>".join(wording.short(place, subject) for subject in results.subjects)


def markdown_table(rows: list[list[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def _csv_row(place: Place, subject: str, category: str) -> dict[str, Any]:
    tally = place.tally(subject, category)
    return {
        **_cell_columns(place),
        "subject": subject,
        "category": category,
        "state": place.state(subject, category),
        **dict(zip(STATUSES, tally.counts, strict=True)),
        "total": tally.total,
        "known": tally.known,
        "complete": str(bool(place.run and place.run.whole)).lower(),
    }


def _cell_columns(place: Place) -> dict[str, Any]:
    return {"cell": place.cell.id, **{name: getattr(place.cell, name) for name in CSV_COLUMNS[1:5]}}
