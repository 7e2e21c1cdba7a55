"""Which architectures export, as the site says it: the table of all, and a page each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matrix.cells.cell import Cell, version_key
from matrix.judge.architectures import CATEGORY, QUESTIONS, Architecture
from matrix.judge.baseline import OURS, PATCHED
from matrix.judge.goals import Word
from matrix.records.lines import NOT_ASKED, Record
from matrix.render import wording
from matrix.render.site.facts import Facts
from matrix.render.site.phrases import WORD_TONES

COMMAND = "python -m nox -s \"conformance(torch='{torch}', transformers='{transformers}')\" -- --category {category}"
Mark = tuple[str, str, str]
"""A tone, a text, and a longer text."""


@dataclass(frozen=True)
class Row:
    """One model class on one cell: for each subject and question a mark."""

    cell: Cell
    model: str
    marks: Sequence[tuple[str, Sequence[Mark]]]


def cells(facts: Facts) -> list[Cell]:
    """The cells that were asked, the newest transformers first."""
    found = {cell for one in facts.architectures.values() for cell in one.answers}
    return sorted(found, key=lambda cell: (version_key(cell.transformers), version_key(cell.torch)), reverse=True)


def subjects(facts: Facts) -> list[str]:
    """The subjects that any cell was asked about, in the site's order."""
    asked = {subject for one in facts.architectures.values() for cell in one.answers.values() for subject in cell}
    return [*(one for one in facts.subjects if one in asked), *sorted(asked - set(facts.subjects))]


def answer(facts: Facts) -> str:
    """The whole table in a sentence: how many export with the subject that does most, on the newest cell."""
    newest = next(iter(cells(facts)), None)
    if newest is None:
        return "Nobody has published which architectures export"
    subject = PATCHED if PATCHED in subjects(facts) else OURS
    words = Counter(one.word(newest, subject) for one in facts.architectures.values() if newest in one.answers)
    asked = sum(words.values()) - words["unknown"]
    where = f"torch {newest.torch} with transformers {newest.transformers}"
    rest = f"; {words['unknown']} more cannot be made tiny, or have no cache" if words["unknown"] else ""
    name = wording.subject_name(subject)
    return f"{name[:1].upper()}{name[1:]}, {words['yes']} of {asked} architectures export, on {where}{rest}"


def command(facts: Facts) -> str:
    """The command that asks the newest pair."""
    torch, transformers = facts.releases["torch"][-1], facts.releases["transformers"][-1]
    return COMMAND.format(torch=torch, transformers=transformers, category=CATEGORY)


def verdict(one: Architecture, facts: Facts) -> str:
    """One architecture in a sentence, on the newest cell that was asked: a word a subject."""
    newest = next(cell for cell in cells(facts) if cell in one.answers)
    told: dict[Word, str] = {"yes": "yes", "partly": "partly", "no": "no", "unknown": "not asked"}
    parts = [
        f"{wording.subject_name(subject)}, {told[one.word(newest, subject)]}"
        for subject in subjects(facts)
        if subject in one.answers[newest]
    ]
    return f"On torch {newest.torch} with transformers {newest.transformers}: {'; '.join(parts)}"


def table(facts: Facts) -> list[tuple[Architecture, list[Mark]]]:
    """A line an architecture: for each subject a word and how many of its questions pass, on its newest cell."""
    order, every = cells(facts), subjects(facts)
    return [
        (one, [_count(one, cell, subject) for subject in every])
        for one in facts.architectures.values()
        for cell in [next(cell for cell in order if cell in one.answers)]
    ]


def rows(one: Architecture, facts: Facts) -> list[Row]:
    """A line a cell and model class, the newest cell first."""
    return [
        Row(cell, model, [(subject, _marks(one, cell, subject, model)) for subject in subjects(facts)])
        for cell in cells(facts)
        for model in one.classes
        if any(model in subject for subject in one.answers.get(cell, {}).values())
    ]


def reasons(one: Architecture, facts: Facts) -> list[tuple[str, str, list[str]]]:
    """What does not pass: subject, message, and where, each message once."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell in cells(facts):
        for subject in subjects(facts):
            for record in one.records(cell, subject):
                if record.status != "pass" and record.message:
                    where = f"{record.id} on torch {cell.torch} with transformers {cell.transformers}"
                    found.setdefault((subject, record.message), []).append(where)
    return [(subject, message, where) for (subject, message), where in found.items()]


def document(one: Architecture) -> dict[str, Any]:
    """An architecture as data."""
    return {
        "schema": 1,
        "architecture": one.name,
        "classes": one.classes,
        "cells": [
            {
                "cell": cell.id,
                "subjects": {
                    subject: {
                        "answer": one.word(cell, subject),
                        "checks": {record.id: record.status for record in one.records(cell, subject)},
                    }
                    for subject in one.answers[cell]
                },
            }
            for cell in sorted(one.answers, key=lambda cell: cell.id)
        ],
    }


def _count(one: Architecture, cell: Cell, subject: str) -> Mark:
    asked = [record for record in one.records(cell, subject) if record.status not in NOT_ASKED]
    word = one.word(cell, subject)
    passed = sum(record.status == "pass" for record in asked)
    return WORD_TONES[word], "" if word == "unknown" else word, f"{passed} of {len(asked)}" if asked else "not asked"


def _marks(one: Architecture, cell: Cell, subject: str, model: str) -> list[Mark]:
    asked = one.answers[cell].get(subject, {}).get(model, {})
    return [_mark(asked.get(question)) for question in QUESTIONS]


def _mark(record: Record | None) -> Mark:
    if record is None:
        return "none", "not asked", ""
    if record.status in NOT_ASKED:
        return "none", "n/a" if record.status == "na" else "skipped", record.message
    return ("good", "yes", "") if record.status == "pass" else ("bad", record.status, record.message)
