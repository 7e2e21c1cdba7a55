"""Non-passes with the same cause as one finding: a cell of hundreds of checks fails for a handful of reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from matrix.judge.baseline import BaselineRow
from matrix.judge.verdicts import Judgement, Verdict

_CONTEXT = re.compile(r"\s*\[[^\[\]]*\]\s*$")
"""The end of a message that names the cache: "sequence length is 3, expected 9 [DynamicCache, ...]"."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+|(?<=\()[0-9]{12,}(?=\))")


@dataclass(frozen=True)
class Finding:
    """Verdicts of one subject that differ only in the check and the cache they are about; at least one."""

    verdicts: tuple[Verdict, ...]

    @property
    def first(self) -> Verdict:
        """The one that is shown in full."""
        return self.verdicts[0]

    @property
    def verdict(self) -> Judgement:
        """What all of them mean."""
        return self.first.verdict

    @property
    def row(self) -> BaselineRow | None:
        """The baseline row of all of them."""
        return self.first.row

    @property
    def label(self) -> str:
        """How all of them ended: "fail", "known, fail", "stale baseline row"."""
        status = self.first.record.status
        return {"fixed": "stale baseline row", "known": f"known, {status}"}.get(self.verdict, status)

    @property
    def message(self) -> str:
        """What the first of them said."""
        return self.first.record.message

    @property
    def ids(self) -> list[str]:
        """The checks, in the order of the run."""
        return [verdict.record.id for verdict in self.verdicts]

    @property
    def reproduce(self) -> str:
        """The one command that shows the cause; a known failure needs none."""
        return "" if self.verdict == "known" else self.first.record.reproduce


def findings(verdicts: Iterable[Verdict]) -> list[Finding]:
    """The verdicts other than ok, grouped by cause, in the order in which the run met the causes."""
    groups: dict[object, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.verdict != "ok":
            record = verdict.record
            key = (record.subject, verdict.verdict, record.status, verdict.row, without_context(record.message))
            groups.setdefault(key, []).append(verdict)
    return [Finding(tuple(group)) for group in groups.values()]


def without_context(message: str) -> str:
    """A message without the end that says of which cache it speaks, and without addresses."""
    return _ADDRESS.sub("0x", _CONTEXT.sub("", message))


def some(names: list[str], most: int) -> str:
    """Names in a row, cut after a number of them: "a, b, c and 21 more"."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
