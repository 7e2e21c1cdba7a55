"""What changed since the publication before, in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from matrix.judge.publications import Cause, Publication
from matrix.render import wording

BROKE = ("regressed", "flaky", "lost", "changed", "fixed")
"""What the first page tells of a publication; the page of changes tells all."""
TONES = {
    "regressed": "bad",
    "flaky": "bad",
    "lost": "bad",
    "changed": "known",
    "newly asked and failing": "known",
    "newly asked and passing": "good",
    "fixed": "good",
    "added": "good",
    "removed": "open",
}


def label(cause: Cause) -> str:
    """What became of the checks: the kind, and of those that are newly asked how they answer."""
    if cause.kind != "newly asked":
        return cause.kind
    return f"newly asked and {'passing' if cause.new == 'pass' else 'failing'}"


def cells(one: Publication) -> str:
    """How many cells were measured anew: "3 cells, 1 of them for the first time"."""
    added = {cell for cause in one.causes if cause.kind == "added" for cell in cause.cells}
    text = f"{len(one.cells)} cell{'s' if len(one.cells) != 1 else ''}"
    return f"{text}, {len(added)} of them for the first time" if added else text


def counts(one: Publication, subject: str, kinds: Iterable[str] = TONES) -> str:
    """What changed for a subject: "4 fixed, 209 newly asked and passing", or "nothing"; some kinds, or all."""
    found: dict[str, int] = {}
    for cause in one.causes:
        if cause.subject == subject:
            found[label(cause)] = found.get(label(cause), 0) + cause.checks
    return ", ".join(f"{found[kind]} {kind}" for kind in kinds if kind in found) or "nothing"


def text(one: Publication, subjects: Sequence[str], kinds: Sequence[str] = tuple(TONES)) -> str:
    """A publication in a sentence; some kinds of changes, or all."""
    parts = [
        f"{wording.subject_name(subject)}: {told}"
        for subject in subjects
        if (told := counts(one, subject, kinds)) != "nothing"
    ]
    nothing = "nothing broke" if any(cause.subject for cause in one.causes) else "every check answers as it did"
    return "; ".join([cells(one), *(parts or [nothing])])


def name(one: Publication) -> str:
    """A name that no other publication has, and that stays when others come."""
    return hashlib.sha256(json.dumps(one.to_json(), sort_keys=True).encode()).hexdigest()[:12]
