"""Which architectures export, as a table of its own: Markdown to read, CSV to work with."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from matrix.cells.cell import Cell, version_key
from matrix.judge.architectures import (
    CATEGORY,
    QUESTIONS,
    Architecture,
    Sums,
    architectures,
    has_no_cache,
    is_wrong,
    sums,
)
from matrix.judge.baseline import OURS, PATCHED
from matrix.records.lines import NOT_ASKED, Record
from matrix.render import wording
from matrix.render.grid import Results
from matrix.render.tables import markdown_table

NAMES = ("architectures.md", "architectures.csv")
MOST_LETTERS = 240
"""Of a reason: the records have the whole message."""
COLUMNS = ("architecture", "transformers", "torch", "subject", *QUESTIONS, "reason")
_SIGNS = {"pass": "✓", "fail": "✗", "timeout": "⏱"}
_INTRODUCTION = """Every causal and sequence-to-sequence model class of a release, made tiny from its config class, is
asked three things. Does its cache survive a round trip before each decode step? Is a **decode** step right, exported
once and run at batches and lengths that the export did not see? Is a **prefill**? Right means equal to the model within
1e-4; past a window a program may refuse, a wrong answer it may not give. A model that cannot be made tiny, or that
returns no cache, is asked nothing."""


def files(results: Results) -> dict[str, str]:
    """The files by name; none where nobody was asked."""
    found = architectures([results.extra])
    return dict(zip(NAMES, (_markdown(found), _csv(found)), strict=True)) if found else {}


def sentence(results: Results, folder: str) -> str:
    """What patches are worth: the share of right decode steps with kvconform alone and with its patches too.

    Of the cells where both were asked, for each transformers that with the newest torch; empty where none is.
    """
    found = architectures([results.extra])
    lanes = _lanes(found.values())
    newest: dict[str, Cell] = {}
    for cell, subject in lanes:
        if subject == OURS and (cell, PATCHED) in lanes:
            newest.setdefault(cell.transformers, cell)
    shares = [
        f"{cell.transformers} ({cell.torch}) {_decoding(found, cell, OURS)} → {_decoding(found, cell, PATCHED)}"
        for cell in newest.values()
    ]
    if not shares:
        return ""
    return (
        f"Architectures whose decode step exports right, without the patches → with them, by transformers (torch): "
        f"{', '.join(shares)}. [Every architecture]({folder}/{NAMES[0]})."
    )


def _decoding(found: Mapping[str, Architecture], cell: Cell, subject: str) -> str:
    total = sums(found.values(), cell, subject)
    return f"{100 * total.passed['exported-decode'] // total.cached if total.cached else 0} %"


def _markdown(found: Mapping[str, Architecture]) -> str:
    lanes = _lanes(found.values())
    parts = ["# Which architectures export?", _INTRODUCTION, _sums_table(found.values(), lanes)]
    wrong = [
        line for cell, subject in lanes for line in _wrong_lines(sums(found.values(), cell, subject), cell, subject)
    ]
    parts += ["## Wrong answers", "\n".join(wrong) or "None."]
    for subject in dict.fromkeys(subject for _, subject in lanes):
        cells = [cell for cell, asked in lanes if asked == subject]
        parts += [f"## {_title(subject)}", _KEY, _models_table(found.values(), cells, subject)]
    asked = "python -m nox -s \"conformance(torch='TORCH', transformers='TRANSFORMERS')\" -- --category"
    parts.append(f"Reasons stand in [architectures.csv]({NAMES[1]}). To ask a pair: `{asked} {CATEGORY}`")
    return "\n\n".join(parts) + "\n"


_KEY = (
    "Round trip, decode, prefill: ✓ right, ✗ fails, ⏱ ran out of time, ! crashed. `no cache`: it generates "
    "without one, or is no class that generates. `not made`: the reason stands in the CSV file. Empty: the release "
    "has no such model."
)


def _lanes(found: Iterable[Architecture]) -> list[tuple[Cell, str]]:
    """Every cell and subject that was asked, the newest transformers and the subject that does most first."""
    lanes = {(cell, subject) for one in found for cell, asked in one.answers.items() for subject in asked}
    # "kvconform with patches", "kvconform", then the others by name.
    order = sorted(lanes, key=lambda lane: (not lane[1].startswith("kvconform"), -len(lane[1]), lane[1]))
    return sorted(order, key=lambda lane: (version_key(lane[0].transformers), version_key(lane[0].torch)), reverse=True)


def _sums_table(found: Iterable[Architecture], lanes: list[tuple[Cell, str]]) -> str:
    head = [
        "transformers",
        "torch",
        "subject",
        "architectures",
        "made tiny",
        "with a cache",
        *QUESTIONS.values(),
        "wrong",
    ]
    every = list(found)
    return markdown_table([head, *(_sums_row(sums(every, *lane), *lane) for lane in lanes)])


def _sums_row(total: Sums, cell: Cell, subject: str) -> list[str]:
    passed = [_share(total.passed[question], total.cached) for question in QUESTIONS]
    wrong = len({model for models in total.wrong.values() for model in models})
    made = _share(total.made, total.every)
    names = [cell.transformers, cell.torch, wording.subject_name(subject)]
    return [*names, str(total.every), made, str(total.cached), *passed, str(wrong)]


def _share(part: int, whole: int) -> str:
    # Rounded down: 94.96 % is not 95 %.
    return f"{part} ({1000 * part // whole / 10:g} %)" if whole else "0"


def _wrong_lines(total: Sums, cell: Cell, subject: str) -> list[str]:
    where = f"transformers {cell.transformers}, torch {cell.torch}, {wording.subject_name(subject)}"
    return [f"- {where}: {question} of {model}" for question, models in total.wrong.items() for model in models]


def _title(subject: str) -> str:
    name = wording.subject_name(subject)
    return name[:1].upper() + name[1:]


def _models_table(found: Iterable[Architecture], cells: list[Cell], subject: str) -> str:
    head = ["architecture", *(f"{cell.transformers} ({cell.torch})" for cell in cells)]
    body = [
        [model, *(_spot(one.answers.get(cell, {}).get(subject, {}).get(model, {})) for cell in cells)]
        for one in found
        for model in one.classes
    ]
    return markdown_table([head, *(row for row in body if any(row[1:]))])


def _spot(asked: Mapping[str, Record]) -> str:
    if not asked:
        return ""
    if all(record.status in NOT_ASKED for record in asked.values()):
        return "no cache" if any(map(has_no_cache, asked.values())) else "not made"
    return "".join(_sign(asked.get(question)) for question in QUESTIONS)


def _sign(record: Record | None) -> str:
    if record is None or record.status in NOT_ASKED:
        return "·"
    return "**wrong**" if is_wrong(record) else _SIGNS.get(record.status, "!")


def _csv(found: Mapping[str, Architecture]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell, subject in _lanes(found.values()):
        for one in found.values():
            for model, asked in sorted(one.answers.get(cell, {}).get(subject, {}).items()):
                statuses = [asked[question].status if question in asked else "" for question in QUESTIONS]
                reason = next((record.message for record in asked.values() if record.message), "")
                about = [model, cell.transformers, cell.torch, subject]
                writer.writerow([*about, *statuses, " ".join(reason.split())[:MOST_LETTERS]])
    return stream.getvalue()
