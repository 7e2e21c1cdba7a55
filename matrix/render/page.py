"""Results into one self-contained page: no outside request, a grid that needs no script, every message escaped."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from matrix.judge.baseline import OURS
from matrix.judge.findings import findings
from matrix.judge.tally import ALL, STATES, State, Tally
from matrix.render import wording
from matrix.render.grid import Place, Results

TEMPLATES = Path(__file__).with_name("templates")
MOST_PLACES = 20_000
"""Above so many places over all categories a page is large: to stay light to open, it shows all checks together only,
without the two selects and without details where all is right."""


@dataclass(frozen=True)
class Inline:
    """A style sheet or script in the page, and the hash that lets it through the page's own security policy."""

    text: Markup

    @property
    def hash(self) -> str:
        """The source expression of the Content-Security-Policy."""
        digest = hashlib.sha256(self.text.encode()).digest()
        return f"sha256-{base64.b64encode(digest).decode()}"


def render(results: Results) -> str:
    """The page."""
    large = _is_large(results)
    shown = (ALL,) if large else (ALL, *results.categories)
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8") + _switches(len(shown))
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("page.html")
        .render(
            results=results,
            shown=shown,
            large=large,
            detailed=_detailed(results, large=large),
            measured=wording.measured(results),
            warnings=wording.warnings(results),
            legend=_legend(results),
            unresolved=[place for place in results.places if place.run and place.run.unresolved is not None],
            style=Inline(Markup(style)),  # noqa: S704 - our own files
            script=Inline(Markup(script)),  # noqa: S704 - our own files
        )
    )


@functools.cache
def environment() -> jinja2.Environment:
    """The templates: everything is escaped, and a misspelled name is an error rather than an empty place."""
    loaded = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    loaded.globals.update(
        marks=wording.MARKS,
        name=wording.subject_name,
        short=wording.short,
        sentence=wording.sentence,
        breakdown=wording.breakdown,
        command=wording.nox_command,
        headline=wording.headline,
        answer=_answer,
        findings=findings,
    )
    return loaded


def _is_large(results: Results) -> bool:
    places = sum(len(grid.torches) * len(grid.transformers) for grid in results.grids)
    return places * (1 + len(results.categories)) > MOST_PLACES


def _detailed(results: Results, *, large: bool) -> set[str]:
    """The cells that have a dialog: in a large page those in which something is not all right."""
    return {
        place.cell.id
        for place in results.places
        if not large or any(place.state(subject) not in ("pass", "never") for subject in results.subjects)
    }


def _switches(number: int) -> str:
    """The rules by which a checked radio shows its grid."""
    hide = "".join(
        f"body:has(#show-{one}:checked) .lane:not(.show-{one}) {{ display: none; }}\n" for one in range(number)
    )
    # Where :has is not known, the grid of all checks stays alone instead of all grids in a row.
    return f"@supports not selector(:has(a)) {{ .choose, .lane:not(.show-0) {{ display: none; }} }}\n{hide}"


def _legend(results: Results) -> list[State]:
    used = {
        place.state(subject, category)
        for place in results.places
        for subject in results.subjects
        for category in (ALL, *results.categories)
    }
    if any(len(grid.places) < len(grid.torches) * len(grid.transformers) for grid in results.grids):
        used.add("never")
    # n/a and skipped share a sign; the legend needs it once.
    return [state for state in STATES if state in used and not (state == "skip" and "na" in used)]


def _answer(place: Place, subjects: Sequence[str]) -> tuple[str, list[str]]:
    """The answer to the two selects: a word, then a sentence a subject."""
    if place.run is None or place.run.unresolved is not None:
        return "No: these two cannot be installed together.", []
    asked = [subject for subject in subjects if place.tally(subject) != Tally()]
    words: dict[State, str] = {
        "pass": "Yes.",
        "known": "Mostly: each exception has a known reason.",
        "partial": "Not fully measured.",
    }
    sentences = [f"{wording.subject_name(subject)}: {wording.sentence(place, subject)}" for subject in asked]
    return words.get(place.state(OURS), "Not entirely."), [f"{text[:1].upper()}{text[1:]}." for text in sentences]
