"""One cell for a terminal, and all cells for the summary of a CI job. Imports no pandas: a session must end fast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matrix.judge.baseline import OURS, OWN
from matrix.judge.findings import Finding, findings, some
from matrix.judge.tally import ALL, Tally, state_of
from matrix.judge.verdicts import Verdict
from matrix.records.lines import STATUSES, CellRun, Record
from matrix.render.wording import MARKS, breakdown

LONGEST_MESSAGE = 4
"""Lines of a message that the terminal shows; the record keeps the rest."""
MOST_NAMES = 3
"""Checks with the same cause that the terminal names; the record and the page name them all."""


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
    """What a subject does not pass: check by check for ours, by cause for others, which do not decide the exit code."""
    mine = [each for each in verdicts if each.record.subject == subject]
    found = findings(mine)
    if not found:
        return ""
    if subject not in OWN:
        title = f"{subject} (findings about others do not fail a run)"
        return "\n".join([title, *(_told(each) for each in found)])
    # Checks that never ran have no message and no command of their own; hundreds of them would hide the rest.
    each_its_own = [part for each in found for part in (_apart(each) if each.message and each.reproduce else [each])]
    return "\n".join([subject, *(_told(each) for each in each_its_own)])


def _apart(found: Finding) -> list[Finding]:
    return [Finding((verdict,)) for verdict in found.verdicts]


def _told(found: Finding) -> str:
    many = f"{len(found.ids)} checks: " if len(found.ids) > 1 else ""
    lines = [f"  {many}{some(found.ids, MOST_NAMES)}: {found.label}"]
    message = found.message.splitlines()
    lines += [f"    {line}" for line in message[:LONGEST_MESSAGE]]
    lines += [f"    ... {len(message) - LONGEST_MESSAGE} more lines"] if len(message) > LONGEST_MESSAGE else []
    lines += [f"    why: {found.row.reason} ({found.row.fault})"] if found.row else []
    lines += [f"    $ {found.reproduce}"] if found.reproduce else []
    return "\n".join(lines)


def _closing(run: CellRun, verdicts: Sequence[Verdict]) -> str:
    kinds = [verdict.verdict for verdict in verdicts]
    words = {"regressed": "regressed", "fixed": "stale in the baseline", "known": "known", "finding": "about others"}
    parts = [f"{kinds.count(kind)} {word}" for kind, word in words.items() if kind in kinds]
    seconds = sum(record.seconds for record in run.records)
    return f"{len(run.records)} checks in {seconds:.0f} s of checking: {', '.join(parts) or 'nothing to report'}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
