"""Short texts of the site: what a release changed, what a badge is about, what to paste."""

from __future__ import annotations

from collections.abc import Sequence

from matrix.judge.baseline import OURS, PATCHED
from matrix.judge.changes import KINDS, Kind, ReleaseChanges
from matrix.judge.goals import Goal
from matrix.render import wording
from matrix.render.site.facts import Measured, Pair
from matrix.render.site.families import Family

TONES = {
    "broke": "bad",
    "repaired": "good",
    "newly asked and failing": "known",
    "newly asked and passing": "good",
    "no longer asked": "open",
}
BROKE: tuple[Kind, ...] = ("broke", "repaired")
"""What the first page tells of a release; its own page tells all."""
WORD_TONES = {"yes": "good", "partly": "open", "no": "bad", "unknown": "none"}
_CODE = """\
import torch
from kvconform import {name}

with {name}({options}):
    program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=shapes)"""
CODE = {
    OURS: _CODE.format(name="register_flattening_functions", options="patch_transformers=True"),
    PATCHED: _CODE.format(name="exportable", options=""),
}
"""What to paste, for each subject of ours."""


def upper(text: str) -> str:
    """A text at the beginning of a line."""
    return text[:1].upper() + text[1:]


def change_text(change: ReleaseChanges, subjects: Sequence[str], kinds: Sequence[Kind] = KINDS) -> str:
    """What a release changed, in a sentence; some kinds of changes, or all."""
    parts = [
        f"{wording.subject_name(one)}: {told}"
        for one in subjects
        if (told := changed(change, one, kinds)) not in ("nothing", "unknown")
    ]
    if not change.beside:
        return "not measured beside the same release of the other"
    return "; ".join(parts) or ("nothing changed" if kinds == KINDS else "nothing broke")


def changed(change: ReleaseChanges, subject: str, kinds: Sequence[Kind] = KINDS) -> str:
    """How many checks of one subject a release broke, repaired, and so on."""
    if not change.beside or subject not in change.subjects:
        return "unknown"
    counts = [(kind, change.count(kind, subject)) for kind in kinds]
    return ", ".join(f"{number} {kind}" for kind, number in counts if number) or "nothing"


def asked_of(family: Family, subject: str) -> str:
    """In how many cells every check of a name passes."""
    good, asked = family.cells(subject)
    return f"{good} of {asked}" if asked else "not asked"


def badge_label(pair: Pair, subject: str) -> str:
    """What a badge is about: it tells the subject."""
    return f"torch {pair[0]} · transformers {pair[1]}, {wording.subject_name(subject)}"


def mark(counts: tuple[int, int] | None, *, asked: bool) -> tuple[str, str]:
    """The tone and the mark of a place: passed of asked; of a subject that was not asked there at all, a dot."""
    if counts is None:
        return "none", "n/a" if asked else "·"
    passed, of = counts
    tone = "good" if passed == of else "bad" if not passed else "open"
    return tone, f"✓ {of}" if passed == of else f"✗ {passed}/{of}"


def measured_line(measured: Measured, newest: str) -> str:
    """When and by which suite: "2026-11-25 by suite 61d31b43"; one that is not the newest is told beside it."""
    suite = f" by suite {measured.suite}" if measured.suite else ""
    later = f", not by the newest, {newest}" if suite and measured.suite != newest else ""
    return f"{measured.days or 'on an unknown day'}{suite}{later}"


def install_lines(measured: Measured, repository: str) -> list[str]:
    """The lines that install what was measured, and kvconform with it."""
    packages = measured.run.environment.packages
    names = [f"{name}=={packages[name].split('+')[0]}" for name in ("torch", "transformers") if name in packages]
    ours = f'pip install "kvconform @ git+{repository}"' if repository else "pip install .    # in a clone of kvconform"
    return [f"pip install {' '.join(names)}", ours] if names else []


def paste(measured: Measured, goals: Sequence[Goal]) -> tuple[str, str]:
    """Which subject of ours to use with a pair and the lines for it; empty texts where neither works.

    The patched one is proposed where it does something that the other does not.
    """
    ours, patched = (measured.answers.get(subject) for subject in (OURS, PATCHED))
    names = [goal.name for goal in goals]
    better = patched and any(patched.goal(name) == "yes" and (not ours or ours.goal(name) != "yes") for name in names)
    if patched and patched.word != "no" and (better or not ours or ours.word == "no"):
        return PATCHED, CODE[PATCHED]
    return (OURS, CODE[OURS]) if ours and ours.word != "no" else ("", "")
