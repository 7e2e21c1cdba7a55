"""The portability grid: answers read, judged and written as JSON, Markdown and a table on the terminal."""

from __future__ import annotations

import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from matrix.cells.cell import Cell, minor_of
from matrix.cells.selectors import braces
from matrix.errors import ExitCode, UserError
from matrix.paths import DATA

SCHEMA = 1
KNOWN_TOML = DATA / "portability.toml"
QUESTIONS = ("program", "context")
WRONG = frozenset(("fail", "error", "missing"))
_AXES = ("saved_torch", "saved_transformers", "loaded_torch", "loaded_transformers")
_SIGNS = {"pass": "✓", "na": "-", "fail": "✗", "error": "!", "missing": "?"}


@dataclass(frozen=True)
class Known:
    """An expected non-pass: which programs and pairs, what they answer, why, and whose fault it is."""

    program: str
    question: str
    status: str
    reason: str
    fault: str
    specifiers: Mapping[str, str] = field(default_factory=dict)

    def covers(self, program: str, question: str, saver: Cell, loader: Cell) -> bool:
        """Whether the row is about a question to a pair."""
        values = dict(zip(_AXES, (saver.torch, saver.transformers, loader.torch, loader.transformers), strict=True))
        return (
            any(fnmatchcase(program, pattern) for pattern in braces(self.program))
            and question in braces(self.question)
            and all(SpecifierSet(text).contains(minor_of(values[axis])) for axis, text in self.specifiers.items())
        )


def load_known(path: Path = KNOWN_TOML) -> tuple[Known, ...]:
    """Read the expected non-passes.

    Raises:
        UserError: the file is malformed.
    """
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("expected", [])
        return tuple(
            Known(
                program=row["program"],
                question=row["question"],
                status=row["status"],
                reason=row["reason"],
                fault=row["fault"],
                specifiers={axis: row[axis] for axis in _AXES if axis in row},
            )
            for row in rows
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise UserError(f"{path.name} cannot be read: {error!r}", f"git diff -- matrix/{path.name}") from error


@dataclass(frozen=True)
class Act:
    """What one process answered: its header, its answers by program and question, and whether it reached its end."""

    header: Mapping[str, str]
    answers: Mapping[tuple[str, str], tuple[str, str]]
    finished: str | None = None
    died: str = ""

    @classmethod
    def read(cls, path: Path) -> Act | None:
        """Read a file of answers; None where there is none. A torn last line is not an answer."""
        if not path.exists():
            return None
        header: dict[str, str] = {}
        answers: dict[tuple[str, str], tuple[str, str]] = {}
        finished, died = None, ""
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line: dict[str, Any] = json.loads(text)
            except ValueError:
                continue
            kind = line.pop("kind", "")
            if kind == "portability":
                header = {key: str(value) for key, value in line.items()}
            elif kind == "answer":
                answers[line["program"], line["question"]] = (line["status"], line["message"])
            elif kind == "end":
                finished = line["finished"]
            elif kind == "died":
                died = line["why"]
        return cls(header, answers, finished, died)

    def answer(self, program: str, question: str) -> tuple[str, str]:
        """The answer to a question; a process that died before it answered is an error."""
        given = self.answers.get((program, question))
        if given is not None:
            return given
        return ("error", f"the process {self.died}") if self.died else ("missing", "it was not asked")


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
class Grid:
    """All results of a subject."""

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
    ) -> Grid:
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


def write(grid: Grid, folder: Path) -> None:
    """Write portability.json and portability.md, each at once."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"portability.json": json.dumps(grid.to_json(), indent=1) + "\n", "portability.md": markdown(grid)}
    for name, text in texts.items():
        part = folder / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)


def markdown(grid: Grid) -> str:
    """The grid as a page: a table a program and question, then what did not pass."""
    lines = ["# Portability", "", "Made by `python -m matrix portability`; explained in docs/portability.md.", ""]
    lines += [f"Subject `{grid.subject}`. {summary(grid)}", "", f"Signs: {_legend()}. Rows saved, columns load.", ""]
    lines += ["| cell | versions |", "|---|---|"]
    lines += [f"| {_name(cell)} | {grid.versions.get(cell.id, 'nothing saved')} |" for cell in grid.cells]
    for program in grid.programs:
        for question in QUESTIONS:
            lines += ["", f"## {program}: {question}", "", *_table(grid, program, question)]
    return "\n".join([*lines, "", *_notes(grid.results)]) + "\n"


def _table(grid: Grid, program: str, question: str) -> list[str]:
    found = grid.of(program, question)
    names = [_name(cell) for cell in grid.cells]
    lines = ["| saved in | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for saver, name in zip(grid.cells, names, strict=True):
        signs = [_sign(found[saver.id, loader.id]) for loader in grid.cells]
        lines.append(f"| {name} | " + " | ".join(signs) + " |")
    return lines


def _notes(results: Iterable[Result]) -> list[str]:
    """Every non-pass once a message, with the pairs it was met in."""
    groups: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        if result.status != "pass":
            groups[result.status, result.verdict, result.reason or result.message].append(result)
    lines = ["## What did not pass", ""]
    for (status, verdict, why), met in sorted(groups.items(), key=lambda item: (item[0][1] == "ok", item[0])):
        programs = ", ".join(dict.fromkeys(f"{r.program} ({r.question})" for r in met))
        pairs = "; ".join(dict.fromkeys(f"{_name(Cell.parse(r.saver))} in {_name(Cell.parse(r.loader))}" for r in met))
        told = status if verdict == "ok" else f"{status}, {verdict}"
        message = f"`{met[0].message.replace('`', chr(39)) or 'no message'}`"
        lines += [f"- **{told}** {programs}: {f'{why} ' if met[0].reason else ''}{message}", f"  {pairs}"]
    return lines


def show(grid: Grid) -> None:
    """Print the grid: one table, a cell's sign for each program, the worst of its two questions."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for question in QUESTIONS:
        table = Table(title=f"{question}: saved in (rows), loaded in (columns)", title_justify="left")
        table.add_column("saved in")
        for cell in grid.cells:
            table.add_column(_name(cell))
        for saver in grid.cells:
            table.add_row(_name(saver), *(_signs(grid, question, saver, loader) for loader in grid.cells))
        console.print(table)
    console.print(f"a sign a program: {', '.join(grid.programs)}\n{_legend()}\n{summary(grid)}")
    for result in grid.results:
        if result.verdict in {"wrong", "fixed"}:
            told = f"{result.verdict}: {result.question} {result.program}"
            told += f", saved in {result.saver}, loaded in {result.loader}: {result.message[:300]}"
            console.print(told, markup=False, highlight=False)


def summary(grid: Grid) -> str:
    """The counts in one line."""
    counts = Counter(result.status for result in grid.results)
    known = sum(result.verdict == "known" for result in grid.results)
    told = ", ".join(f"{counts[status]} {status}" for status in _SIGNS if counts[status])
    return (
        f"{len(grid.results)} questions: {told}; {known} of the non-passes are expected (matrix/data/portability.toml)."
    )


def _signs(grid: Grid, question: str, saver: Cell, loader: Cell) -> str:
    return " ".join(_sign(grid.of(program, question)[saver.id, loader.id]) for program in grid.programs)


def _sign(result: Result) -> str:
    """A known non-pass is in small, a pass that was not expected is both."""
    sign = _SIGNS[result.status]
    return f"{sign}*" if result.verdict == "fixed" else f"({sign})" if result.verdict == "known" else sign


def _legend() -> str:
    return ", ".join(f"{sign} {status}" for status, sign in _SIGNS.items()) + ", (✗) an expected failure"


def _name(cell: Cell) -> str:
    return f"{cell.torch}/{cell.transformers}"
