"""One cell for a terminal, and all cells for the summary of a CI job. Imports no pandas: a session must end fast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matrix.baseline import OURS
from matrix.judge import Verdict
from matrix.lines import STATUSES, CellRun, Record
from matrix.tally import ALL, Tally, state_of
from matrix.wording import MARKS, breakdown

LONGEST_MESSAGE = 4
"""Lines of a message that the terminal shows; the record keeps the rest."""


def summary(run: CellRun, verdicts: Sequence[Verdict]) -> str:
    """What a run found: counts by category and subject, then each check that does not pass with its command.

    The subject that decides the exit code comes last, next to the prompt.
    """
    if run.unresolved is not None:
        return f"{run.cell}: no environment could be made\n{_indented(run.unresolved)}"
    subjects = _subjects(run)
    parts = [_header(run), _table(run, verdicts, subjects)]
    parts += [text for subject in reversed(subjects) if (text := _findings(subject, verdicts))]
    return "\n\n".join([*parts, _closing(run, verdicts)])


def tallies(run: CellRun, verdicts: Iterable[Verdict]) -> dict[tuple[str, str], Tally]:
    """The tally of each subject in each category and in all of them."""
    known = {(each.record.subject, each.record.id) for each in verdicts if each.verdict == "known"}
    found: dict[tuple[str, str], Tally] = {}
    for record in run.records:
        one = _one(record, explained=(record.subject, record.id) in known)
        for category in (record.category, ALL):
            found[record.subject, category] = found.get((record.subject, category), Tally()) + one
    return found


def _one(record: Record, *, explained: bool) -> Tally:
    counts = tuple(int(status == record.status) for status in STATUSES)
    return Tally(counts, counts if explained else Tally().explained)


def _subjects(run: CellRun) -> list[str]:
    names = dict.fromkeys([*run.environment.subjects, *(record.subject for record in run.records)])
    return sorted(names, key=lambda name: name != OURS)


def _header(run: CellRun) -> str:
    about = run.environment
    text = f"{run.cell}: torch {about.torch}, transformers {about.transformers}, Python {about.python}, {about.device}"
    notes = [f"only {about.selection}"] if about.selection else []
    notes += [] if run.complete else ["the run did not reach its end"]
    return f"{text} ({'; '.join(notes)})" if notes else text


def _table(run: CellRun, verdicts: Sequence[Verdict], subjects: Sequence[str]) -> str:
    counted = tallies(run, verdicts)
    categories = [*dict.fromkeys(record.category for record in run.records), ALL]
    rows = [["", *subjects]]
    for category in categories:
        row = [counted.get((subject, category), Tally()) for subject in subjects]
        rows.append([category, *(f"{MARKS[state_of(run, tally)].sign} {breakdown(tally)}" for tally in row)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _findings(subject: str, verdicts: Iterable[Verdict]) -> str:
    found = [each for each in verdicts if each.record.subject == subject and each.verdict != "ok"]
    if not found:
        return ""
    title = subject if subject == OURS else f"{subject} (findings about others do not fail a run)"
    return "\n".join([title, *(_finding(each) for each in found)])


def _finding(verdict: Verdict) -> str:
    record = verdict.record
    label = "stale baseline row, " if verdict.verdict == "fixed" else "known, " if verdict.verdict == "known" else ""
    lines = [f"  {record.id}: {label}{record.status}"]
    message = record.message.splitlines()
    lines += [f"    {line}" for line in message[:LONGEST_MESSAGE]]
    lines += [f"    ... {len(message) - LONGEST_MESSAGE} more lines"] if len(message) > LONGEST_MESSAGE else []
    lines += [f"    why: {verdict.row.reason} ({verdict.row.fault})"] if verdict.row else []
    # A known failure needs no repeating: its row tells more than the run would.
    lines += [f"    $ {record.reproduce}"] if record.reproduce and verdict.verdict != "known" else []
    return "\n".join(lines)


def _closing(run: CellRun, verdicts: Sequence[Verdict]) -> str:
    kinds = [verdict.verdict for verdict in verdicts]
    words = {"regressed": "regressed", "fixed": "stale in the baseline", "known": "known", "finding": "about others"}
    parts = [f"{kinds.count(kind)} {word}" for kind, word in words.items() if kind in kinds]
    seconds = sum(record.seconds for record in run.records)
    return f"{len(run.records)} checks in {seconds:.0f} s of checking: {', '.join(parts) or 'nothing to report'}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
