"""Prints a run in plain words: what is running, then category by subject, then each failing check with its command."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvconform_conformance.runner.recorder import FAILED, STATUSES, Outcome, Recorder

if TYPE_CHECKING:
    from kvconform_conformance.runner.environment import Environment

_SHOWN = 60
_EVERY = 10.0  # seconds


def _say(text: str = "") -> None:
    sys.stdout.write(
        text.encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8") + "\n"
    )


class Progress:
    """Shows how far a run is: redrawn in place on a terminal, a line every ten seconds in a log."""

    def __init__(self, recorder: Recorder, clock: Callable[[], float] = time.monotonic) -> None:
        self.recorder = recorder
        self.clock = clock
        self.began = self.shown = clock()

    def pytest_runtest_logfinish(self) -> None:
        """Show it, where there is something new to show."""
        state = f"{len(self.recorder.outcomes)}/{len(self.recorder.planned)} checks"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{state}")
        elif self.clock() - self.shown >= _EVERY:
            self.shown = self.clock()
            sys.stderr.write(f"{state}, {self.shown - self.began:.0f} s\n")
        else:
            return
        sys.stderr.flush()


def show(recorder: Recorder, environment: Environment, slowest: int = 0) -> None:
    """Print the summary of a run that ended."""
    try:
        _show(recorder, environment, slowest)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (`| head`): how the run ended is still for the exit code to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(recorder: Recorder, environment: Environment, slowest: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    outcomes = list(recorder.outcomes.values())
    _say(
        f"torch {environment.torch}, transformers {environment.transformers}, "
        f"python {environment.python}, {environment.device}"
    )
    _say(f"{len(outcomes)} of {len(recorder.planned)} checks: {_counts(recorder.counts())}")
    _table(outcomes)
    _failures([outcome for outcome in outcomes if outcome.status in FAILED])
    if slowest:
        _say(f"\nslowest {slowest}:")
        for outcome in sorted(outcomes, key=lambda one: -one.seconds)[:slowest]:
            _say(f"  {outcome.seconds:7.2f} s  {outcome.subject}  {outcome.id}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "none ran"


def _table(outcomes: list[Outcome]) -> None:
    """A line for each subject and category: passed of applicable, the seconds, then what else happened."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.subject, outcome.category), []).append(outcome)
    width = max((len(subject) for subject, _ in groups), default=0)
    for (subject, category), members in sorted(groups.items()):
        counter = Counter(member.status for member in members)
        applicable = sum(counter[status] for status in STATUSES if status not in ("na", "skip"))
        rest = ", ".join(f"{counter[status]} {status}" for status in STATUSES[1:] if counter[status])
        seconds = sum(member.seconds for member in members)
        _say(
            f"  {subject:{width}}  {category:14}  {counter['pass']:4}/{applicable:<4} {seconds:7.1f} s  {rest}".rstrip()
        )


def _failures(failed: list[Outcome]) -> None:
    if not failed:
        return
    _say("\nnot passed:")
    failed = sorted(failed, key=lambda outcome: (outcome.subject, outcome.id))
    for outcome in failed[:_SHOWN]:
        fields = outcome.to_json("cpu")
        _say(f"  {outcome.status:7}  {outcome.subject}  {outcome.id}\n           {fields['message'][:300]}")
    if len(failed) > _SHOWN:
        _say(f"  and {len(failed) - _SHOWN} more; --record FILE keeps them all")
    _say(f"repeat one: {failed[0].to_json('cpu')['reproduce']}")
