"""What the pairs of cells answered, beside what is expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix.cells.cell import Cell
from matrix.errors import ExitCode
from matrix.portability.answers import Act
from matrix.portability.expected import Known

SCHEMA = 1
QUESTIONS = ("program", "context")
WRONG = frozenset(("fail", "error", "missing"))


@dataclass(frozen=True)
class Result:
    """One question about one program, saved in a cell and loaded in another."""

    program: str
    question: str
    saver: str
    loader: str
    status: str
    message: str = ""
    verdict: str = "ok"
    """ok, known (an expected non-pass), wrong, or fixed (a row expected a non-pass, and it passes)."""
    reason: str = ""
    """Why it is expected, and whose fault it is."""

    def to_json(self) -> dict[str, str]:
        """The result as the report's JSON has it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Crossings:
    """All results of a subject: what each cell saved, in each cell that loads it."""

    subject: str
    digest: str
    cells: tuple[Cell, ...]
    versions: Mapping[str, str]
    results: tuple[Result, ...]
    known: tuple[Known, ...] = ()

    @classmethod
    def collect(
        cls,
        subject: str,
        digest: str,
        cells: Sequence[Cell],
        record: Callable[[Cell, Cell | None], Path],
        known: tuple[Known, ...],
    ) -> Crossings:
        """Read what every pair answered; what is of another suite, or of programs saved anew since, is missing."""
        saves = {cell: _of_suite(Act.read(record(cell, None)), digest) for cell in cells}
        versions = {
            cell.id: f"torch {act.header.get('torch')}, transformers {act.header.get('transformers')}"
            for cell, act in saves.items()
            if act
        }
        programs = list(dict.fromkeys(program for act in saves.values() if act for program, _ in act.answers))
        results = [
            _result(saver, loader, saves[saver], act, (program, question), known)
            for saver in cells
            for loader in cells
            for act in [_of_programs(_of_suite(Act.read(record(saver, loader)), digest), saves[saver])]
            for program in programs
            for question in QUESTIONS
        ]
        return cls(subject, digest, tuple(cells), versions, tuple(results), known)

    @property
    def exit_code(self) -> int:
        """0 where everything passes, is not applicable or is expected; 3 where nothing was asked; else 1."""
        if not self.results:
            return ExitCode.EMPTY
        return ExitCode.REGRESSION if any(r.verdict in {"wrong", "fixed"} for r in self.results) else ExitCode.OK

    @property
    def programs(self) -> list[str]:
        """The programs, in the order they were saved."""
        return list(dict.fromkeys(result.program for result in self.results))

    def of(self, program: str, question: str) -> dict[tuple[str, str], Result]:
        """The results of one question about one program, by saver and loader."""
        chosen = [r for r in self.results if (r.program, r.question) == (program, question)]
        return {(result.saver, result.loader): result for result in chosen}

    def to_json(self) -> dict[str, Any]:
        """The report's JSON."""
        return {
            "schema": SCHEMA,
            "subject": self.subject,
            "digest": self.digest,
            "cells": {cell.id: self.versions.get(cell.id, "") for cell in self.cells},
            "counts": dict(Counter(result.status for result in self.results)),
            "verdicts": dict(Counter(result.verdict for result in self.results)),
            "results": [result.to_json() for result in self.results],
        }


def _of_suite(act: Act | None, digest: str) -> Act | None:
    return act if act and act.header.get("digest", digest) == digest else None


def _of_programs(act: Act | None, saved: Act | None) -> Act | None:
    """An answer about programs that were saved anew since is none."""
    return act if act and saved and act.header.get("programs", saved.finished) == saved.finished else None


def _result(  # noqa: PLR0913, PLR0917 - two cells, two acts, a question and what is known
    saver: Cell, loader: Cell, saved: Act | None, loaded: Act | None, asked: tuple[str, str], known: tuple[Known, ...]
) -> Result:
    """One result. A program that was not saved answers what its saver answered: there is nothing to load."""
    missing = Act({}, {})
    status, message = (saved or missing).answer(*asked)
    if status == "pass":
        status, message = (loaded or missing).answer(*asked)
    else:
        message = f"not saved: {message}"
    covering = [row for row in known if row.covers(*asked, saver, loader)]
    row = next((row for row in covering if row.status == status), covering[0] if covering else None)
    verdict = "wrong" if status in WRONG else "ok"
    if row is not None and status == row.status:
        verdict = "known"
    elif row is not None and status == "pass":
        verdict = "fixed"
    reason = f"{row.reason} (fault: {row.fault})" if row is not None and verdict == "known" else ""
    return Result(*asked, saver.id, loader.id, status, message, verdict, reason)
