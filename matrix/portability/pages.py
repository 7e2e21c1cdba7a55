"""The portability grid as JSON, as Markdown and on the terminal."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from matrix.cells.cell import Cell
from matrix.portability.verdicts import QUESTIONS, Crossings, Result
from matrix.records.writing import put

_SIGNS = {"pass": "✓", "na": "-", "fail": "✗", "error": "!", "missing": "?"}


def write(crossings: Crossings, folder: Path) -> None:
    """Write portability.json and portability.md, each whole or not at all."""
    put(folder / "portability.json", json.dumps(crossings.to_json(), indent=1) + "\n")
    put(folder / "portability.md", markdown(crossings))


def markdown(crossings: Crossings) -> str:
    """The grid as a page: a table for each program and question, then what did not pass."""
    lines = ["# Portability", "", "Made by `python -m matrix portability`; explained in docs/portability.md.", ""]
    lines += [
        f"Subject `{crossings.subject}`. {summary(crossings)}",
        "",
        f"Signs: {_legend()}. Rows saved, columns load.",
        "",
    ]
    lines += ["| cell | versions |", "|---|---|"]
    lines += [f"| {_name(cell)} | {crossings.versions.get(cell.id, 'nothing saved')} |" for cell in crossings.cells]
    for program in crossings.programs:
        for question in QUESTIONS:
            lines += ["", f"## {program}: {question}", "", *_table(crossings, program, question)]
    return "\n".join([*lines, "", *_notes(crossings.results)]) + "\n"


def _table(crossings: Crossings, program: str, question: str) -> list[str]:
    found = crossings.of(program, question)
    names = [_name(cell) for cell in crossings.cells]
    lines = ["| saved in | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for saver, name in zip(crossings.cells, names, strict=True):
        signs = [_sign(found[saver.id, loader.id]) for loader in crossings.cells]
        lines.append(f"| {name} | " + " | ".join(signs) + " |")
    return lines


def _notes(results: Iterable[Result]) -> list[str]:
    """Each message of a non-pass once, with the programs and the pairs of cells that gave it."""
    groups: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        if result.status != "pass":
            groups[result.status, result.verdict, result.reason or result.message].append(result)
    lines = ["## What did not pass", ""]
    for (status, verdict, why), met in sorted(groups.items(), key=lambda item: (item[0][1] == "ok", item[0])):
        programs = ", ".join(dict.fromkeys(f"{r.program} ({r.question})" for r in met))
        pairs = "; ".join(dict.fromkeys(f"{_name(Cell.parse(r.saver))} in {_name(Cell.parse(r.loader))}" for r in met))
        label = status if verdict == "ok" else f"{status}, {verdict}"
        message = f"`{met[0].message.replace('`', chr(39)) or 'no message'}`"
        lines += [f"- **{label}** {programs}: {f'{why} ' if met[0].reason else ''}{message}", f"  {pairs}"]
    return lines


def show(crossings: Crossings) -> None:
    """Print a table for each question, in each place a sign for each program, then what is wrong."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for question in QUESTIONS:
        table = Table(title=f"{question}: saved in (rows), loaded in (columns)", title_justify="left")
        table.add_column("saved in")
        for cell in crossings.cells:
            table.add_column(_name(cell))
        for saver in crossings.cells:
            table.add_row(_name(saver), *(_signs(crossings, question, saver, loader) for loader in crossings.cells))
        console.print(table)
    console.print(f"a sign a program: {', '.join(crossings.programs)}\n{_legend()}\n{summary(crossings)}")
    for result in crossings.results:
        if result.verdict in {"wrong", "fixed"}:
            what = f"{result.verdict}: {result.question} {result.program}"
            where = f"saved in {result.saver}, loaded in {result.loader}"
            console.print(f"{what}, {where}: {result.message[:300]}", markup=False, highlight=False)


def summary(crossings: Crossings) -> str:
    """The counts in one line."""
    counts = Counter(result.status for result in crossings.results)
    known = sum(result.verdict == "known" for result in crossings.results)
    by_status = ", ".join(f"{counts[status]} {status}" for status in _SIGNS if counts[status])
    where = "matrix/data/portability.toml"
    return f"{len(crossings.results)} questions: {by_status}; {known} of the non-passes are expected ({where})."


def _signs(crossings: Crossings, question: str, saver: Cell, loader: Cell) -> str:
    return " ".join(_sign(crossings.of(program, question)[saver.id, loader.id]) for program in crossings.programs)


def _sign(result: Result) -> str:
    """The sign of a status: in parentheses where it is expected, with a star where a failure is and did not happen."""
    sign = _SIGNS[result.status]
    return f"{sign}*" if result.verdict == "fixed" else f"({sign})" if result.verdict == "known" else sign


def _legend() -> str:
    return ", ".join(f"{sign} {status}" for status, sign in _SIGNS.items()) + ", (✗) an expected failure"


def _name(cell: Cell) -> str:
    return f"{cell.torch}/{cell.transformers}"
