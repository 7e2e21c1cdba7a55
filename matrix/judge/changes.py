"""What a release broke and repaired against the one before it, grouped by cause."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from matrix.cells.cell import Cell, version_key
from matrix.judge.findings import without_context
from matrix.judge.table import JudgedTable
from matrix.records.lines import NOT_ASKED, STATUSES, WRONG

Kind = Literal["broke", "repaired", "newly asked and failing", "newly asked and passing", "no longer asked"]
"""`newly asked`: n/a, skipped or not there in the release before, where nothing was promised about it."""
KINDS: tuple[Kind, ...] = get_args(Kind)
_WRONG = 2
"""An answer that is wrong; 1 is a pass, 0 no answer."""


@dataclass(frozen=True)
class Change:
    """Checks of one subject that answer alike in one release and alike otherwise in the one before.

    Attributes:
        kind: what became of them.
        subject: the subject.
        ids: the checks.
        message: what the first of them says in the release where it does not pass.
        page: the known failure that explains it, or an empty text.
        beside: the releases of the other axis on which it was seen.
    """

    kind: Kind
    subject: str
    ids: tuple[str, ...]
    message: str
    page: str
    beside: tuple[str, ...]


@dataclass(frozen=True)
class ReleaseChanges:
    """One release against the one before it.

    Attributes:
        axis: torch or transformers.
        release: the release; `before` the one that it is compared with.
        beside: the releases of the other axis with which both were measured; empty where there is none, so that nobody
            knows what changed.
        changes: the differences, the worst kind first.
        subjects: the subjects that both were asked about, in some cell.
        left: how many checks were left out, for only one of the two runs had a suite that asks them.
        suites: whether some of the runs that are compared were asked by different suites.
    """

    axis: str
    release: str
    before: str
    beside: tuple[str, ...]
    changes: tuple[Change, ...]
    subjects: tuple[str, ...] = ()
    left: int = 0
    suites: bool = False

    def count(self, kind: Kind, subject: str) -> int:
        """How many checks changed so, over all causes."""
        return sum(len(change.ids) for change in self.changes if (change.kind, change.subject) == (kind, subject))


def release_changes(judged: JudgedTable, numbers: Mapping[Cell, int], axis: str) -> list[ReleaseChanges]:
    """Every release of an axis against the one before it, the newest first.

    Args:
        judged: the verdicts.
        numbers: the runs to compare, by cell; those of one Python and one device.
        axis: torch or transformers.
    """
    other = "torch" if axis == "transformers" else "transformers"
    runs = {
        (getattr(cell, axis), getattr(cell, other)): number
        for cell, number in numbers.items()
        if judged.table.runs[number].whole
    }
    releases = sorted({release for release, _ in runs}, key=version_key)
    found = []
    look = _Look(judged)
    for before, release in itertools.pairwise(releases):
        beside = sorted({b for r, b in runs if r == release} & {b for r, b in runs if r == before}, key=version_key)
        groups: dict[tuple[Kind, str, str, str], dict[str, dict[str, None]]] = {}
        asked: dict[str, None] = {}
        left: set[str] = set()
        for one in beside:
            left |= look.left_out(runs[before, one], runs[release, one])
            asked.update(dict.fromkeys(look.subjects_of(runs[before, one], runs[release, one])))
            for kind, subject, name, message, page in look.changes(runs[before, one], runs[release, one]):
                group = groups.setdefault((kind, subject, page or without_context(message), page), {})
                group.setdefault(name, {})[one] = None
        changes = [
            Change(kind, subject, tuple(ids), "" if page else text, page, _all(ids, beside))
            for (kind, subject, text, page), ids in groups.items()
        ]
        changes.sort(key=lambda change: (KINDS.index(change.kind), -len(change.ids)))
        suites = any(look.suites_differ(runs[before, one], runs[release, one]) for one in beside)
        found.append(
            ReleaseChanges(axis, release, before, tuple(beside), tuple(changes), tuple(asked), len(left), suites)
        )
    return found[::-1]


def _all(ids: Mapping[str, Mapping[str, None]], beside: Sequence[str]) -> tuple[str, ...]:
    seen = {one for each in ids.values() for one in each}
    return tuple(one for one in beside if one in seen)


class _Look:
    """Two runs of a judged table side by side."""

    def __init__(self, judged: JudgedTable) -> None:
        self.judged, table = judged, judged.table
        self.key = table.codes("subject").astype(np.int64) * len(table.names("id")) + table.codes("id")
        self.group = np.zeros(len(STATUSES), np.int8)
        for code, name in enumerate(STATUSES):
            self.group[code] = 2 if name in WRONG else 0 if name in NOT_ASKED else 1
        self.messages, self.message = table.names("message"), table.codes("message")
        self.status = table.codes("status")
        self.subjects, self.ids = table.names("subject"), table.names("id")

    def _of(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp], npt.NDArray[np.int8]]:
        span = self.judged.span(number)
        at = np.arange(span.start, span.stop)
        order = np.argsort(self.key[span], kind="stable")
        at = at[order]
        return self.key[at], at, self.group[self.status[at]]

    def subjects_of(self, old: int, new: int) -> list[str]:
        """The subjects that both runs were asked about."""
        runs = self.judged.table.runs
        return [one for one in runs[old].environment.subjects if one in runs[new].environment.subjects]

    def suites_differ(self, old: int, new: int) -> bool:
        """Whether two runs were asked by different suites; one that tells none is taken to have the other's."""
        digests = {self.judged.table.runs[number].environment.digest for number in (old, new)} - {None}
        return len(digests) > 1

    def left_out(self, old: int, new: int) -> set[str]:
        """The checks that only one of the two suites asks."""
        if not self.suites_differ(old, new):
            return set()
        ids = self.judged.table.codes("id")
        codes = np.setxor1d(np.unique(ids[self.judged.span(old)]), np.unique(ids[self.judged.span(new)]))
        return {self.ids[code] for code in codes.tolist()}

    def changes(self, old: int, new: int) -> Iterator[tuple[Kind, str, str, str, str]]:
        """Kind, subject, check, message and page of each check that answers otherwise; subjects asked in both alone.

        A check that only one of two suites asks is left out: that is the suite's change, not the release's.
        """
        left = self.left_out(old, new)
        old_keys, old_at, old_group = self._of(old)
        new_keys, new_at, new_group = self._of(new)
        both = self.subjects_of(old, new)
        keys = np.union1d(old_keys, new_keys)
        was, old_place = _looked_up(keys, old_keys, old_group)
        is_now, new_place = _looked_up(keys, new_keys, new_group)
        for place in np.flatnonzero(was != is_now):
            subject, name = divmod(int(keys[place]), len(self.ids))
            if self.subjects[subject] not in both or self.ids[name] in left:
                continue
            kind = _kind(int(was[place]), int(is_now[place]))
            wrong = new_at[new_place[place]] if is_now[place] == _WRONG else old_at[old_place[place]]
            tells = _WRONG in (was[place], is_now[place])
            message = self.messages[self.message[wrong]] if tells else ""
            row = int(self.judged.row[wrong]) if tells else -1
            page = self.judged.rows[row].failure if row >= 0 else ""
            yield kind, self.subjects[subject], self.ids[name], message, page


def _looked_up(
    keys: npt.NDArray[np.int64], own: npt.NDArray[np.int64], group: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.intp]]:
    """The group of each key (0 where a run has it not), and its place in the run."""
    place = np.minimum(np.searchsorted(own, keys), max(len(own) - 1, 0))
    if not len(own):
        return np.zeros(len(keys), np.int8), place
    return np.where(own[place] == keys, group[place], 0).astype(np.int8), place


def _kind(was: int, is_now: int) -> Kind:
    """What became of a check: 0 not asked, 1 pass, 2 wrong."""
    kinds: dict[tuple[int, int], Kind] = {
        (1, 2): "broke",
        (2, 1): "repaired",
        (0, 2): "newly asked and failing",
        (0, 1): "newly asked and passing",
    }
    return kinds.get((was, is_now), "no longer asked")
