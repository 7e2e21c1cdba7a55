"""Short texts of the site: what a release changed, what a badge is about, what to paste."""

from __future__ import annotations

from collections.abc import Sequence

from matrix.judge.changes import KINDS, ReleaseChanges
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
WORD_TONES = {"yes": "good", "partly": "open", "no": "bad", "unknown": "none"}
CODE = """\
import torch
from kvconform import register_flattening_functions

with register_flattening_functions(patch_transformers=True):
    program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=shapes)"""


def change_text(change: ReleaseChanges, subjects: Sequence[str]) -> str:
    """What a release changed, in a sentence."""
    parts = [
        f"{wording.subject_name(one)}: {changed(change, one)}"
        for one in subjects
        if changed(change, one) not in ("nothing", "unknown")
    ]
    if not change.beside:
        return "not measured beside the same release of the other"
    return "; ".join(parts) or "nothing changed"


def changed(change: ReleaseChanges, subject: str) -> str:
    """How many checks of one subject a release broke, repaired, and so on."""
    if not change.beside or subject not in change.subjects:
        return "unknown"
    counts = [(kind, change.count(kind, subject)) for kind in KINDS]
    return ", ".join(f"{number} {kind}" for kind, number in counts if number) or "nothing"


def asked_of(family: Family, subject: str) -> str:
    """In how many cells every check of a name passes."""
    good, asked = family.cells(subject)
    return f"{good} of {asked}" if asked else "not asked"


def badge_label(pair: Pair, subject: str) -> str:
    """What a badge is about: it tells the subject."""
    return f"torch {pair[0]} · transformers {pair[1]}, {wording.subject_name(subject)}"


def mark(counts: tuple[int, int] | None) -> tuple[str, str]:
    """The tone and the mark of a place: passed of asked."""
    if counts is None:
        return "none", "n/a"
    passed, asked = counts
    tone = "good" if passed == asked else "bad" if not passed else "open"
    return tone, f"✓ {asked}" if passed == asked else f"✗ {passed}/{asked}"


def install_line(measured: Measured) -> str:
    """The line that installs what was measured."""
    packages = measured.run.environment.packages
    names = [f"{name}=={packages[name].split('+')[0]}" for name in ("torch", "transformers") if name in packages]
    return f"pip install {' '.join(names)}" if names else ""
