"""Runs many mutants: from one warm process, a fork for each, cheap questions first, until the first wrong answer."""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from kvconform.checks import making
from kvconform_conformance.runner.plugin import prepare_torch
from kvconform_conformance.runner.subjects import Subject
from mutants import asking, generated
from mutants.generated import Mutant

LIMIT = 240.0
"""Seconds that one mutant may take."""

_AHEAD = 12
"""How many of the checks that noticed other mutants are asked before all others."""


def prepare() -> dict[str, Mutant]:
    """Warm this process up, and give the mutants of this release by name."""
    # As the suite's workers do: what registers classes for good when it is imported comes before the tables are read.
    prepare_torch()
    # A registration finds the user's classes when it is entered: they must be there before the first.
    making.own_classes()
    return generated.mutants()


def suite() -> list[asking.Check]:
    """The checks that are asked."""
    return asking.checks()


def right() -> Subject:
    """A mutant with nothing wrong: what it is made by is right too, else every mutant would be noticed by that."""
    return Mutant("none", change=lambda: None).subject


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the check that noticed it (none: it survived), how, and after how long."""

    mutant: str
    killer: str | None
    status: str
    message: str
    seconds: float


@dataclass(frozen=True)
class Questions:
    """The checks that pass for the right registration, those that answer soonest first."""

    entered: tuple[asking.Check, ...]
    lifetimes: tuple[asking.Check, ...]
    failing: tuple[str, ...]

    @classmethod
    def of(cls, found: Sequence[asking.Check], right: Subject) -> Questions:
        """Ask everything once of the right registration, in this process."""
        timed, failing = [], []
        for check in found:
            answer = asking.ask(check, right)
            if answer.status == "pass":
                timed.append((_rank(answer.seconds), check))
            elif answer.status != "na":
                failing.append(f"{check.id}: {answer.message[:300]}")
        ordered = [check for _, check in sorted(timed, key=lambda pair: pair[0])]
        entered = tuple(check for check in ordered if not asking.enters_itself(check))
        return cls(entered, tuple(check for check in ordered if asking.enters_itself(check)), tuple(failing))

    @property
    def ids(self) -> set[str]:
        """The ids of all of them."""
        return {check.id for check in (*self.entered, *self.lifetimes)}

    def first(self, names: Sequence[str]) -> Questions:
        """The same questions, some of them before all others."""
        places = {name: place for place, name in enumerate(names)}
        entered, lifetimes = (
            tuple(sorted(share, key=lambda check: places.get(check.id, len(places))))
            for share in (self.entered, self.lifetimes)
        )
        return Questions(entered, lifetimes, self.failing)

    def only(self, name: str) -> Questions:
        """One of them, alone."""
        entered, lifetimes = (
            tuple(check for check in share if check.id == name) for share in (self.entered, self.lifetimes)
        )
        return Questions(entered, lifetimes, ())


def _rank(seconds: float) -> int:
    """Seconds by steps of four times, so that the order hardly depends on the moment."""
    steps = 0
    while seconds > 0.002:
        seconds, steps = seconds / 4, steps + 1
    return steps


def judge(mutant: Mutant, questions: Questions) -> Verdict:
    """Ask in this process until one answer is wrong. A context of its own is asked first how it enters and leaves."""
    begun = time.perf_counter()
    rounds = [questions.entered, questions.lifetimes]
    for share in reversed(rounds) if mutant.context is not None else rounds:
        for check, answer in asking.ask_all(share, mutant.subject):
            if answer.status in ("fail", "error"):
                return Verdict(mutant.name, check, answer.status, answer.message[:300], time.perf_counter() - begun)
    return Verdict(mutant.name, None, "survived", "", time.perf_counter() - begun)


def judge_all(mutants: Sequence[Mutant], questions: Questions, jobs: int = 2) -> Iterator[Verdict]:
    """Judge each mutant in a fork of this process, ``jobs`` at a time; whatever a mutant breaks ends with its fork.

    Forks that still run when the caller wants no more are ended.
    """
    running: dict[int, tuple[Mutant, int, float, bytes]] = {}
    try:
        yield from _judge_all(list(mutants)[::-1], questions, jobs, running)
    finally:
        for pipe, (_, pid, _, _) in running.items():
            os.close(pipe)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _judge_all(
    waiting: list[Mutant], questions: Questions, jobs: int, running: dict[int, tuple[Mutant, int, float, bytes]]
) -> Iterator[Verdict]:
    # What noticed one fault often notices the next, which is like it: those checks are asked first, the last one ahead.
    noticing: dict[str, None] = {}
    with selectors.DefaultSelector() as selector:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                pid, pipe = _fork(mutant, questions.first([*noticing][: -_AHEAD - 1 : -1]))
                running[pipe] = (mutant, pid, time.monotonic(), b"")
                selector.register(pipe, selectors.EVENT_READ)
            for key, _ in selector.select(timeout=1.0):
                pipe = key.fd
                mutant, pid, begun, text = running[pipe]
                part = os.read(pipe, 1 << 16)
                running[pipe] = (mutant, pid, begun, text + part)
                if not part:
                    selector.unregister(pipe)
                    verdict = _ended(*running.pop(pipe), pipe)
                    if verdict.killer is not None:
                        noticing.pop(verdict.killer, None)
                        noticing[verdict.killer] = None
                    yield verdict
            for _, pid, begun, _ in running.values():
                if time.monotonic() - begun > LIMIT:
                    os.kill(pid, signal.SIGKILL)


def _fork(mutant: Mutant, questions: Questions) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        # Ctrl-C reaches every process of a terminal; the one that forked this ends it, and an end is no answer.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        verdict = judge(mutant, questions)
        os.write(writing, json.dumps(asdict(verdict)).encode())
    finally:
        os._exit(0)


def _ended(mutant: Mutant, pid: int, begun: float, text: bytes, pipe: int) -> Verdict:
    os.close(pipe)
    os.waitpid(pid, 0)
    if text:
        return Verdict(**json.loads(text))
    # A process that dies, or hangs, is what the suite tells as a crash or a timeout: it is noticed.
    seconds = time.monotonic() - begun
    return Verdict(mutant.name, "(the process)", "timeout" if seconds > LIMIT else "crash", "", seconds)
