"""The non-passes of every run grouped by cause: `matrix.judge.findings` for all runs at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matrix.judge.baseline import BaselineRow
from matrix.judge.findings import without_context
from matrix.judge.table import JUDGEMENTS, JudgedTable
from matrix.judge.verdicts import Judgement
from matrix.records.lines import STATUSES, Status

STALE = "the row names no check of this cell"


@dataclass(frozen=True)
class Cause:
    """Checks of one subject in one run that end alike.

    Attributes:
        subject: the subject.
        verdict: what all of them mean; `status` how all of them ended.
        row: the baseline row of all of them.
        message: what the first of them said; `reproduce` is the command that shows it.
        ids: the checks.
    """

    subject: str
    verdict: Judgement
    status: Status
    row: BaselineRow | None
    message: str
    reproduce: str
    ids: Sequence[str]

    @property
    def page(self) -> str:
        """The page of docs/known-failures that the row links, `vmap-masks`, or an empty text."""
        link = self.row.link if self.row else ""
        return link.removeprefix("docs/known-failures/").removesuffix(".md") if link.startswith("docs/") else ""

    @property
    def label(self) -> str:
        """How all of them ended: "fail", "known, fail", "stale baseline row"."""
        return {"fixed": "stale baseline row", "known": f"known, {self.status}"}.get(self.verdict, self.status)


def _first_rows(judged: JudgedTable) -> npt.NDArray[np.int64]:
    """By baseline row, the first row with the same page of docs/known-failures, or -1: none; the last entry is -1."""
    first: dict[str, int] = {}
    found = [
        first.setdefault(row.link, number) if row.link.startswith("docs/") else -1
        for number, row in enumerate(judged.rows)
    ]
    return np.array([*found, -1], np.int64)


def causes(judged: JudgedTable) -> list[list[Cause]]:
    """By the run's number, its causes: the ones that explain most checks first."""
    table = judged.table
    found: list[list[Cause]] = [[] for _ in table.runs]
    at = np.flatnonzero(judged.verdict)
    texts = [without_context(message) for message in table.names("message")]
    kinds = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    kind = np.array([kinds[text] for text in texts], np.int64)[table.codes("message")[at]]
    row_of = judged.row[at].astype(np.int64)
    # A page of docs/known-failures says more than a message: what it explains is one cause, whatever torch says.
    paged = _first_rows(judged)[row_of]
    explained = (judged.verdict[at] == JUDGEMENTS.index("known")) & (row_of >= 0) & (paged >= 0)
    row_of, kind = np.where(explained, paged, row_of), np.where(explained, 0, kind)
    run_of = np.repeat(np.arange(len(table.runs)), np.diff(table.bounds))[at]
    columns = (run_of, table.codes("subject")[at], judged.verdict[at], table.codes("status")[at], row_of + 1, kind)
    key = np.zeros(len(at), np.int64)
    for column in columns:
        key = key * (int(column.max(initial=0)) + 1) + column
    order = np.argsort(key, kind="stable")
    edges = np.flatnonzero(np.diff(key[order], prepend=-1))
    names = {name: table.names(name) for name in ("subject", "id", "message", "reproduce")}
    codes = {name: table.codes(name) for name in (*names, "status")}
    for first, last in itertools.pairwise([*edges, len(order)]):
        group = at[order[first:last]]
        one = group[0]
        row = int(judged.row[one])
        cause = Cause(
            **{name: names[name][codes[name][one]] for name in ("subject", "message", "reproduce")},
            verdict=JUDGEMENTS[judged.verdict[one]],
            status=STATUSES[codes["status"][one]],
            row=judged.rows[row] if row >= 0 else None,
            ids=[names["id"][code] for code in codes["id"][group]],
        )
        found[run_of[order[first]]].append(cause)
    for number, rows in judged.stale.items():
        found[number] += [Cause(row.subject, "fixed", "missing", row, STALE, "", (row.check,)) for row in rows]
    return [sorted(each, key=lambda cause: -len(cause.ids)) for each in found]
