"""What each release broke and repaired, as a terminal and a program read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matrix.cells.cell import version_key
from matrix.cells.ranges import expand
from matrix.errors import ExitCode, UserError
from matrix.judge.changes import Change, ReleaseChanges, release_changes
from matrix.judge.findings import some
from matrix.render import wording
from matrix.render.grid import Results
from matrix.render.site import data
from matrix.render.text import printable

MOST_CAUSES = 8
"""Causes of a subject in a release, before `--all` is needed."""
MOST_LETTERS = 120


def between(results: Results, axis: str, text: str) -> list[ReleaseChanges]:
    """The releases of a range, each against the one that was measured before it, oldest first.

    Args:
        results: the judged records; the fullest Python and device count.
        axis: torch or transformers.
        text: `4.56..4.57`: those after 4.56 and up to 4.57; `4.57`: that one; an end may be left out.

    Raises:
        UserError: the range names a release that was never measured, or none that has one before it.
    """
    lane = {place.cell: place.number for place in results.grids[0]} if results.grids else {}
    assert results.judged is not None  # noqa: S101 - results of records always have them
    every = release_changes(results.judged, lane, axis)[::-1]
    known = sorted({release for each in every for release in (each.before, each.release)}, key=version_key)
    if not known:
        raise UserError(f"no two {axis} releases were measured", "python -m matrix report", ExitCode.EMPTY)
    wanted = expand(axis, text, known)
    # The first of a range is what the second is compared with; alone, a release is compared with the one before it.
    wanted = wanted[1:] if len(wanted) > 1 and not text.startswith("..") else wanted
    found = [each for each in every if each.release in wanted]
    if not found:
        raise UserError(f"{axis} {text} has no measured release before it", f"known: {known[0]} to {known[-1]}")
    return found


def text(change: ReleaseChanges, subjects: Sequence[str], *, whole: bool = False) -> str:
    """A release: for each subject what it broke, repaired, and asked for the first time, a line a cause."""
    other = "torch" if change.axis == "transformers" else "transformers"
    head = f"{change.axis} {change.release} against {change.before}"
    if not change.beside:
        return f"{head}: unknown, for no {other} was measured with both"
    lines = [f"{head}, with {other} {', '.join(change.beside)}:"]
    if change.suites:
        left = f"; {change.left} checks that only one of them asks are left out" if change.left else ""
        lines.append(f"  asked by different suites, so that a difference may be the check's{left}")
    for subject in subjects:
        own = [one for one in change.changes if one.subject == subject]
        lines.append(f"  {wording.subject_name(subject)}: {'' if own else _nothing(change, subject)}".rstrip())
        shown = own if whole else own[:MOST_CAUSES]
        lines += [f"    {_line(one, change, other, whole=whole)}" for one in shown]
        if len(own) > len(shown):
            lines.append(f"    and {len(own) - len(shown)} more causes: --all")
    return "\n".join(lines)


def to_json(change: ReleaseChanges) -> dict[str, Any]:
    """The same for programs, whole."""
    return {
        "axis": change.axis,
        "release": change.release,
        **(data.changes(change) or {}),
    }


def _nothing(change: ReleaseChanges, subject: str) -> str:
    return "nothing changed" if subject in change.subjects else "not asked in both"


def _line(one: Change, change: ReleaseChanges, other: str, *, whole: bool) -> str:
    why = f"known, {one.page}" if one.page else printable(" ".join(one.message.split()))
    if len(why) > MOST_LETTERS and not whole:
        why = f"{why[:MOST_LETTERS]}..."
    names = list(one.ids) if whole else [some(list(one.ids), 1)]
    partly = "" if one.beside == change.beside else f", with {other} {', '.join(one.beside)}"
    return f"{one.kind} {len(one.ids)}{partly}{': ' if why else ''}{why} ({', '.join(names)})"
