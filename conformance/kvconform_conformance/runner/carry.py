"""Answers of an earlier run that still hold: those to checks whose sources are the same, in the same environment.

They are written into the new record as they were, with the digest of what they were about and the time when they were
asked; the run asks the others only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Key = tuple[str, str]
Digests = Mapping[str, Mapping[str, str]]

SAME = ("cell", "torch", "transformers", "python", "platform", "device", "gpu", "selection")
"""The fields of the header that have to be equal; the packages are compared apart from this project's own."""
OURS = "kvconform"
KEPT = frozenset({"pass", "fail", "error", "skip", "na"})
"""Answers that tell about the sources. A check that ran out of time or died is asked again: the machine may have been
the cause."""


@dataclass(frozen=True)
class Asked:
    """Which answers a run takes over.

    Attributes:
        digests: the digest of each subject and category, as they are now.
        lines: the check lines that are taken over, by subject and id.
    """

    digests: Digests
    lines: Mapping[Key, Line]

    def digest(self, subject: str, category: str) -> str:
        """The digest for an answer; empty for a subject whose sources are unknown."""
        return self.digests.get(subject, {}).get(category, "")


def take_over(paths: Iterable[Path], header: Line, digests: Digests) -> Asked:
    """Read earlier records, the best first, and keep what holds.

    Args:
        paths: record files. One whose run was killed may end in the middle of a line.
        header: the header line of the new run.
        digests: the digest of each subject and category, as they are now.
    """
    kept: dict[Key, Line] = {}
    for path in paths:
        lines = _read(path)
        if lines and _same(lines[0], header):
            for line in lines[1:]:
                if _holds(line, header["subjects"], digests):
                    kept.setdefault((line["subject"], line["id"]), _dated(line, lines[0]))
    return Asked(digests, kept)


def _read(path: Path) -> list[Line]:
    lines: list[Line] = []
    for text in path.read_text("utf-8", "replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict):
            break
        lines.append(line)
    return lines


def _same(before: Line, now: Line) -> bool:
    return all(before.get(name) == now[name] for name in SAME) and _packages(before) == _packages(now)


def _packages(header: Line) -> dict[str, str]:
    return {name: version for name, version in (header.get("packages") or {}).items() if name != OURS}


def _holds(line: Line, subjects: Sequence[str], digests: Digests) -> bool:
    if line.get("kind") != "check" or line.get("status") not in KEPT:
        return False
    subject, digest = line.get("subject", ""), line.get("sources")
    now = digests.get(subject, {}).get(line.get("category", ""))
    return subject in subjects and bool(digest) and digest == now


def _dated(line: Line, header: Line) -> Line:
    return {**line, "asked": line.get("asked") or header.get("started") or ""}
