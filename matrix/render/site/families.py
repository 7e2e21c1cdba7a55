"""Checks by family: the question without the cache or model that it is put to, on every pair."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from matrix.judge.baseline import OURS
from matrix.judge.table import Table
from matrix.paths import ROOT
from matrix.records.lines import NOT_ASKED, STATUSES
from matrix.render.site.facts import Facts, Pair

LISTED = ROOT / "docs" / "checks.md"
"""The list of the checks, which the suite makes of itself."""
_ROW = re.compile(r"^\| `([^`]+)` \| \d+ \| (?:\(opt-in\) )?(.*) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Family:
    """One question.

    Attributes:
        name: the id without its brackets, `model/exported-decode`.
        ids: the checks.
        counts: by subject and pair, how many of them pass and how many were asked; pairs without any are left out.
        proves: what a pass proves, in a sentence; empty where the list of checks has no such check.
    """

    name: str
    ids: tuple[str, ...]
    counts: dict[str, dict[Pair, tuple[int, int]]]
    proves: str = ""

    def cells(self, subject: str) -> tuple[int, int]:
        """In how many pairs all that was asked passes, and in how many any was asked."""
        counts = self.counts.get(subject, {}).values()
        return sum(passed == asked for passed, asked in counts), len(counts)


def families(facts: Facts) -> list[Family]:
    """Every family by name, also of opt-in categories; of a pair, the lane that most visitors ask about."""
    first = {each[0].cell.id: pair for pair, each in facts.cells.items()}
    extra = facts.results.extra
    found = _families(facts.judged.table, first) + (_families(extra.table, first) if extra else [])
    return sorted(found, key=lambda family: family.name)


def _families(table: Table, first_of: Mapping[str, Pair]) -> list[Family]:
    """The families of a table; `first_of` tells the pair of each cell that counts."""
    names = table.names("id")
    stems = [name.partition("[")[0] for name in names]
    order = {stem: number for number, stem in enumerate(sorted(set(stems)))}
    subjects = table.names("subject")
    first = {number: first_of[run.cell] for number, run in enumerate(table.runs) if run.cell in first_of}
    shape = (len(table.runs), len(subjects), len(order))
    run_of = np.repeat(np.arange(shape[0]), np.diff(table.bounds))
    stem_of = np.array([order[stem] for stem in stems], np.int64)
    key = (run_of * shape[1] + table.codes("subject")) * shape[2] + stem_of[table.codes("id")]
    status = table.codes("status")
    asked = ~np.isin(status, [STATUSES.index(name) for name in NOT_ASKED])
    total = int(np.prod(shape))
    asked_of = np.bincount(key[asked], minlength=total).reshape(shape)
    passed_of = np.bincount(key[asked & (status == STATUSES.index("pass"))], minlength=total).reshape(shape)
    ids: dict[str, list[str]] = {}
    for name, stem in zip(names, stems, strict=True):
        ids.setdefault(stem, []).append(name)
    found = []
    proves = dict(_ROW.findall(LISTED.read_text(encoding="utf-8"))) if LISTED.is_file() else {}
    for stem, number in order.items():
        counts: dict[str, dict[Pair, tuple[int, int]]] = {}
        for code, subject in enumerate(subjects):
            counts[subject] = {
                pair: (int(passed_of[run, code, number]), int(asked_of[run, code, number]))
                for run, pair in first.items()
                if asked_of[run, code, number]
            }
        found.append(Family(stem, tuple(sorted(ids[stem])), counts, proves.get(stem, "").replace("`", "")))
    return found


def answer(family: Family) -> str:
    """A family in a sentence."""
    good, asked = family.cells(OURS)
    if not asked:
        return "Not asked with kvconform anywhere"
    where = "every pair" if good == asked else f"{good} of {asked} pairs"
    return (
        f"With kvconform it passes in {where} that asked it"
        if good == asked
        else f"With kvconform it passes in {where}"
    )
