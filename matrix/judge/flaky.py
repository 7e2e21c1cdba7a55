"""Checks that answer differently when nothing differs: the same suite, the same packages, the same machine."""

from __future__ import annotations

from collections.abc import Iterable
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
    answers: dict[tuple[object, ...], dict[Status, None]] = {}
    for run in runs:
        if run.environment.digest is None:
            continue
        for record in run.records:
            if record.status != "missing":
                key = (_question(run), run.cell, record.subject, record.id)
                answers.setdefault(key, {})[record.status] = None
    found = {(key[1:], tuple(sorted(statuses))) for key, statuses in answers.items() if len(statuses) > 1}
    return sorted(Flake(str(key[0]), str(key[1]), str(key[2]), statuses) for key, statuses in found)


def _question(run: CellRun) -> tuple[object, ...]:
    about = run.environment
    return (run.cell, about.digest, tuple(sorted(about.packages.items())), about.python, about.platform, about.gpu)
