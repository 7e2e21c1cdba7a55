"""Checks that answer differently when nothing differs: the same suite, the same packages, the same machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from matrix.records.lines import CellRun, Status


@dataclass(frozen=True, order=True)
class Flake:
    """A check with more than one answer to one question."""

    cell: str
    subject: str
    id: str
    statuses: tuple[Status, ...]


def same_question(old: CellRun, new: CellRun) -> bool:
    """Whether two runs asked the same code in the same environment, so that any difference is chance.

    A run that does not tell its suite's digest is never the same as another.
    """
    return old.environment.digest is not None and _question(old) == _question(new)


def flakes(runs: Iterable[CellRun]) -> list[Flake]:
    """The checks that have several answers among runs that asked the same question.

    `missing` is no answer: an interrupted run says nothing about the checks it did not reach.
    """
    askings: dict[tuple[object, ...], list[CellRun]] = {}
    for run in runs:
        if run.environment.digest is not None:
            askings.setdefault(_question(run), []).append(run)
    # A question that was asked once has one answer to each check: nearly all of them.
    return sorted(flake for asked in askings.values() if len(asked) > 1 for flake in _flakes(asked))


def _flakes(asked: Sequence[CellRun]) -> Iterator[Flake]:
    answers: dict[tuple[str, str], dict[Status, None]] = {}
    for run in asked:
        for record in run.records:
            if record.status != "missing":
                answers.setdefault((record.subject, record.id), {})[record.status] = None
    for (subject, name), statuses in answers.items():
        if len(statuses) > 1:
            yield Flake(asked[0].cell, subject, name, tuple(sorted(statuses)))


def _question(run: CellRun) -> tuple[object, ...]:
    about = run.environment
    return (run.cell, about.digest, tuple(sorted(about.packages.items())), about.python, about.platform, about.gpu)
