"""How a state is said: the same mark and words on the page, in Markdown, in the figure and on a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from matrix.cells.cell import Cell
from matrix.judge.baseline import NATIVE, OURS, PATCHED
from matrix.judge.tally import ALL, State, Tally

if TYPE_CHECKING:
    # The summary of one cell uses these words and must not wait for pandas.
    from matrix.render.grid import Place, Results


@dataclass(frozen=True)
class Mark:
    """A state for readers: a sign that needs no colour, a word, a sentence for the legend, a tone for colours."""

    sign: str
    word: str
    meaning: str
    tone: str


MARKS: dict[State, Mark] = {
    "pass": Mark("✓", "pass", "every check passes", "good"),
    "known": Mark("≈", "known", "some fail, each with a known reason", "known"),
    "fail": Mark("✗", "fail", "some checks fail", "bad"),
    "error": Mark("!", "error", "some checks end in an unexpected exception", "bad"),
    "missing": Mark("?", "missing", "some checks never answered", "bad"),
    "timeout": Mark("!", "timeout", "some checks hang", "bad"),
    "crash": Mark("!", "crash", "some checks crash the interpreter", "bad"),
    "partial": Mark("◐", "partial", "the run was interrupted or asked for less than everything", "open"),
    "skip": Mark("-", "skipped", "every check was left out, such as for lack of a GPU", "none"),
    "na": Mark("-", "n/a", "the releases lack what would be checked", "none"),
    "unresolved": Mark("⊘", "no install", "the two releases cannot be installed together", "open"),
    "never": Mark("·", "not measured", "never measured", "none"),
}

SUBJECTS = {
    OURS: "with kvconform",
    PATCHED: "with kvconform and its patches",
    NATIVE: "transformers alone",
    "exporter": "transformers' own exporter",
}


def subject_name(subject: str) -> str:
    """A subject as visitors read it."""
    return SUBJECTS.get(subject, subject)


def counts(state: State, tally: Tally) -> str:
    """The count beside a mark: "38" where all pass, "31/38" otherwise, nothing where nothing was asked."""
    if not tally.total:
        return ""
    return str(tally.total) if state == "pass" else f"{tally['pass']}/{tally.total}"


def short(place: Place, subject: str, category: str = ALL) -> str:
    """A place in a table: "✓ 38", "✗ 31/38", "! 31/38 crash", "⊘ no install", "·"."""
    state, tally = place.state(subject, category), place.tally(subject, category)
    mark = MARKS[state]
    word = "" if state in ("pass", "known", "fail", "never") else mark.word
    # A run that lacks answers and fails says both: its count is not the whole story.
    open_end = "◐" if place.run and not place.run.complete and state not in ("partial", "never") else ""
    return " ".join(part for part in (mark.sign, counts(state, tally), word, open_end) if part)


def sentence(place: Place, subject: str) -> str:
    """A place in words: "31 of 38 checks pass, 7 fail, 2 n/a"."""
    run, tally = place.run, place.tally(subject)
    state = place.state(subject)
    if run is None or state == "never":
        return "never measured"
    if run.unresolved is not None:
        return "cannot be installed together"
    extent = "" if run.complete else ", the run was interrupted"
    extent += f", only {run.environment.selection} was asked" if run.environment.selection else ""
    return _passes(state, tally) + extent


def breakdown(tally: Tally) -> str:
    """The counts in words: "38 ok · 1 fail (1 known) · 2 n/a · 1 skipped"."""
    words = {"pass": "ok", "na": "n/a", "skip": "skipped"}
    parts = [
        f"{tally[status]} {words.get(status, status)}"
        for status in ("pass", "fail", "error", "missing", "timeout", "crash", "na", "skip")
        if tally[status]
    ]
    if tally.known:
        parts.append(f"{tally.known} of these known")
    return " · ".join(parts) or "nothing asked"


def nox_command(cell: Cell) -> str:
    """The command that measures a cell."""
    return cell.command


def measured(results: Results) -> str:
    """When and how much: "6 cells, measured 2026-11-20 to 2026-11-21"."""
    first, last = results.dates
    number = len(results.places)
    when = f", measured {first}" + (f" to {last}" if last != first else "") if first else ""
    return f"{number} cell{'s' if number != 1 else ''}{when}"


def warnings(results: Results) -> list[str]:
    """What a reader must know before trusting a comparison of two cells."""
    notes = [f"left out, for it cannot be read: {PurePath(file).name}{rest}" for file, rest in map(_split, results.bad)]
    if len(results.digests) > 1:
        notes.append(f"the cells were measured with {len(results.digests)} versions of the suite.")
    incomplete = [place.cell.id for place in results.places if place.run and not place.run.complete]
    if incomplete:
        notes.append(f"{_runs(len(incomplete))} did not reach the end: {', '.join(incomplete)}.")
    filtered = [place.cell.id for place in results.places if place.run and place.run.environment.selection]
    if filtered:
        notes.append(f"{_runs(len(filtered))} asked for less than everything: {', '.join(filtered)}.")
    notes += [f"flaky, {' or '.join(one.statuses)}: {one.subject} {one.id} in {one.cell}." for one in results.flakes]
    notes += [f"the baseline row for {row.check} explains nothing in any cell." for row in results.unused]
    return notes


def headline(results: Results, subject: str) -> str:
    """How many of the cells that were asked are all right: "every check passes in 5 of 6 cells"."""
    states = results.states(subject)
    asked = sum(count for state, count in states.items() if state != "never")
    known = f"; in {states['known']}, all but known failures of torch or transformers" if states.get("known") else ""
    return f"every check passes in {states.get('pass', 0)} of {asked} cells{known}"


def _passes(state: State, tally: Tally) -> str:
    if not tally.total:
        return breakdown(tally)
    everything = f"all {tally.total} checks pass"
    some = f"{tally['pass']} of {tally.total} checks pass"
    rest = breakdown(Tally((0, *tally.counts[1:]), tally.explained))
    return (everything if state == "pass" else some) + (f" ({rest})" if rest != "nothing asked" else "")


def _split(error: str) -> tuple[str, str]:
    """A file and what is wrong with it: pages tell no folder of the machine that wrote them."""
    for end in (".jsonl", ".parquet"):
        if end in error:
            file, _, rest = error.partition(end)
            return f"{file}{end}", rest
    return "", error


def _runs(number: int) -> str:
    return f"{number} run{'s' if number != 1 else ''}"
