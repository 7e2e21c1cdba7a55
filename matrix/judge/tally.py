"""What a group of answers adds up to: counts by status, and the one state that a place of a table shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from matrix.records.lines import NOT_ASKED, STATUSES, CellRun, Status

State = Literal[
    "pass", "known", "fail", "error", "missing", "timeout", "crash", "partial", "skip", "na", "unresolved", "never"
]
"""What one place of a table shows."""

STATES: tuple[State, ...] = get_args(State)
WORST_FIRST: tuple[Literal["crash", "timeout", "missing", "error", "fail"], ...] = (
    "crash",
    "timeout",
    "missing",
    "error",
    "fail",
)
_PLACE = {status: number for number, status in enumerate(STATUSES)}
ALL = "all"
"""The category that stands for all of them."""


@dataclass(frozen=True)
class Tally:
    """How many checks have each status, in the order of STATUSES, and how many of each a baseline row explains."""

    counts: tuple[int, ...] = (0,) * len(STATUSES)
    explained: tuple[int, ...] = (0,) * len(STATUSES)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            tuple(a + b for a, b in zip(self.explained, other.explained, strict=True)),
        )

    def __getitem__(self, status: Status) -> int:
        return self.counts[_PLACE[status]]

    @property
    def total(self) -> int:
        """The checks that were asked: n/a and skipped ones are not, and are counted apart."""
        return sum(self.counts) - sum(self[status] for status in NOT_ASKED)

    @property
    def known(self) -> int:
        """The non-passes that the baseline explains."""
        return sum(self.explained)

    def worst(self) -> Literal["crash", "timeout", "missing", "error", "fail"] | None:
        """The worst status that no baseline row explains, or None."""
        for status in WORST_FIRST:
            if self[status] > self.explained[_PLACE[status]]:
                return status
        return None


def state_of(run: CellRun | None, tally: Tally) -> State:
    """What a place of the table shows.

    | run                     | tally                          | state                     |
    |-------------------------|--------------------------------|---------------------------|
    | none                    | any                            | never                     |
    | unresolved              | any                            | unresolved                |
    | any other               | an unexplained non-pass        | the worst unexplained one |
    | interrupted or filtered | otherwise                      | partial                   |
    | whole                   | non-passes, all explained      | known                     |
    | whole                   | passes and nothing wrong       | pass: the only tick       |
    | whole                   | n/a or skipped checks alone    | na, or skip without n/a   |
    | whole                   | nothing at all                 | never                     |
    """
    if run is None:
        return "never"
    if run.unresolved is not None:
        return "unresolved"
    worst = tally.worst()
    if worst is not None:
        return worst
    if not run.whole:
        return "partial"
    return _calm_state(tally)


def _calm_state(tally: Tally) -> State:
    """The state of a whole run in which nothing is wrong without a reason."""
    if tally.known:
        return "known"
    if tally["pass"]:
        return "pass"
    if tally["na"]:
        return "na"
    return "skip" if tally["skip"] else "never"
