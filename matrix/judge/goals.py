"""What a pair of releases is good for: the goals of `matrix/data/goals.toml` answered from the verdicts."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from matrix.cells.cell import Cell
from matrix.errors import UserError
from matrix.judge.baseline import OURS, glob
from matrix.judge.table import JudgedTable
from matrix.paths import DATA
from matrix.records.lines import NOT_ASKED, STATUSES

DEFAULT = DATA / "goals.toml"
Word = Literal["yes", "partly", "no", "unknown"]
"""What a goal comes to: all its checks pass, some do, none does, none was asked."""

RULE = (
    "the newest transformers and with it the newest torch, of the pairs that were measured whole, in which every check "
    "of the goal that was asked passes, at least one was asked, and nothing fails without a known reason"
)
"""How pins are chosen, for the goal's subject."""
PINNED: tuple[str, ...] = ("torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "numpy")
PINNED += ("onnx", "onnxruntime", "onnxscript", "executorch")
"""The packages that pins name: the two, what decides whether they import, and what programs are exported to."""


@dataclass(frozen=True)
class Goal:
    """One row of `goals.toml`; see the comment at its top."""

    name: str
    title: str
    want: str
    checks: tuple[str, ...]
    core: bool = False
    purpose: bool = True


@dataclass(frozen=True)
class Answer:
    """What one run says of a subject.

    Attributes:
        word: "yes" where everything asked passes or fails for a known reason alone and the core goals hold, "no" where
            a core goal fails, "partly" between, "unknown" where nothing was asked.
        goals: by goal, how many of its checks pass and how many were asked.
        passed: how many checks pass, of `asked`.
        lacking: the goals whose checks are there and all n/a or skipped: the releases lack what they are about.
    """

    word: Word
    goals: Mapping[str, tuple[int, int]]
    passed: int
    asked: int
    unexplained: int
    lacking: frozenset[str] = frozenset()

    def goal(self, name: str) -> Word:
        """What a goal comes to."""
        passed, asked = self.goals.get(name, (0, 0))
        if not asked:
            return "unknown"
        return "yes" if passed == asked else "partly" if passed else "no"


def load_goals(path: Path = DEFAULT) -> list[Goal]:
    """Read `goals.toml`.

    Raises:
        UserError: the file is not what its comment says.
    """
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))["goal"]
        return [Goal(**{**row, "checks": tuple(row["checks"])}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: {error}", f"edit {path}; its comment shows a row") from None


def answers(judged: JudgedTable, goals: Sequence[Goal]) -> dict[tuple[int, str], Answer]:
    """Each run's answer for each subject, by the run's number and the subject."""
    table = judged.table
    subjects = table.names("subject")
    shape = (len(table.runs), len(subjects))
    run_of = np.repeat(np.arange(len(table.runs)), np.diff(table.bounds))
    place = run_of * len(subjects) + table.codes("subject")
    status, ids = table.codes("status"), table.codes("id")
    passed = status == STATUSES.index("pass")
    asked = ~np.isin(status, [STATUSES.index(name) for name in NOT_ASKED])
    unexplained = asked & ~passed & (judged.verdict != 1)

    def counted(wanted: np.ndarray) -> np.ndarray:
        return np.bincount(place[wanted], minlength=shape[0] * shape[1]).reshape(shape)

    by_goal = {}
    for goal in goals:
        patterns = [glob(check) for check in goal.checks]
        named = np.array([any(one.fullmatch(name) for one in patterns) for name in table.names("id")], bool)
        here = named[ids]
        by_goal[goal.name] = counted(here & passed), counted(here & asked), counted(here)
    all_passed, all_asked, all_unexplained = counted(passed), counted(asked), counted(unexplained)
    found = {}
    for number in range(shape[0]):
        for code, subject in enumerate(subjects):
            if not all_asked[number, code]:
                continue
            counts = {name: (int(p[number, code]), int(a[number, code])) for name, (p, a, _) in by_goal.items()}
            lacking = frozenset(
                name for name, (_, a, there) in by_goal.items() if there[number, code] and not a[number, code]
            )
            totals = int(all_passed[number, code]), int(all_asked[number, code]), int(all_unexplained[number, code])
            found[number, subject] = Answer(_word(goals, counts, *totals), counts, *totals, lacking)
    return found


def with_opt_in(
    found: Mapping[tuple[int, str], Answer], judged: JudgedTable, extra: JudgedTable, goals: Sequence[Goal]
) -> dict[tuple[int, str], Answer]:
    """The answers with those to the goals that were asked in runs of opt-in categories; the verdicts stay."""
    more = answers(extra, goals)
    numbers = {run.cell: number for number, run in enumerate(extra.table.runs)}
    joined = dict(found)
    for (number, subject), one in found.items():
        other = more.get((numbers.get(judged.table.runs[number].cell, -1), subject))
        if other is not None:
            counts = {**one.goals, **{name: count for name, count in other.goals.items() if count[1]}}
            lacking = frozenset(name for name in one.lacking | other.lacking if not counts[name][1])
            joined[number, subject] = replace(one, goals=counts, lacking=lacking)
    return joined


def _word(
    goals: Sequence[Goal], counts: Mapping[str, tuple[int, int]], passed: int, asked: int, unexplained: int
) -> Word:
    core = [counts[goal.name] for goal in goals if goal.core and counts[goal.name][1]]
    if any(good < all_of_it for good, all_of_it in core):
        return "no"
    if passed == asked or (core and not unexplained):
        return "yes"
    return "partly"


@dataclass(frozen=True)
class Pins:
    """The cell that is good for a goal, and the versions that it had."""

    cell: Cell
    packages: Mapping[str, str]


def pins(
    judged: JudgedTable,
    found: Mapping[tuple[int, str], Answer],
    goal: Goal,
    subject: str = OURS,
    packages: Mapping[str, Mapping[str, str]] | None = None,
) -> Pins | None:
    """The pins of a goal by `RULE`; None where no pair is measured good for it.

    `packages` are what cells had installed when opt-in categories were asked, by cell.
    """
    good = [
        run
        for number, run in enumerate(judged.table.runs)
        if run.whole and _is_good(found.get((number, subject)), goal) and not Cell.parse(run.cell).moving
    ]
    if not good:
        return None
    best = max(good, key=lambda run: (Cell.parse(run.cell).order[1], Cell.parse(run.cell).order[0]))
    return Pins(Cell.parse(best.cell), _versions({**(packages or {}).get(best.cell, {}), **best.environment.packages}))


def _is_good(answer: Answer | None, goal: Goal) -> bool:
    return answer is not None and answer.goal(goal.name) == "yes" and not answer.unexplained


def _versions(packages: Mapping[str, str]) -> dict[str, str]:
    return {name: packages[name].split("+")[0] for name in PINNED if name in packages}
