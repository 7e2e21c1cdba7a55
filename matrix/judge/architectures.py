"""Which architectures export: the answers of the opt-in category `architectures`, by architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from matrix.cells.cell import Cell
from matrix.judge.goals import Word
from matrix.judge.table import JudgedTable
from matrix.records.lines import NOT_ASKED, WRONG, Record

CATEGORY = "architectures"
QUESTIONS = {"round-trip": "round trip", "exported-decode": "decode", "exported-prefill": "prefill"}
"""The questions of the category, as tables head them."""

_ID = re.compile(r"architectures/([a-z-]+)\[(.+)\]")
_TASK = re.compile(r"(?:For[A-Z][A-Za-z0-9]*|LMHeadModel|Model)$")
_DIFFERS = re.compile(r"logits differ by ")
_NO_CACHE = re.compile(r"returns no cache|calls this model without a cache|does not generate: ")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Architecture:
    """One architecture: the model classes that differ only in their task.

    Attributes:
        name: its address, `mistral`.
        answers: by cell, subject, model class and question, the record.
    """

    name: str
    answers: dict[Cell, dict[str, dict[str, dict[str, Record]]]] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """The model classes, by name."""
        return sorted({one for cell in self.answers.values() for subject in cell.values() for one in subject})

    def records(self, cell: Cell, subject: str) -> list[Record]:
        """What a subject answered on a cell."""
        return [
            record
            for questions in self.answers.get(cell, {}).get(subject, {}).values()
            for record in questions.values()
        ]

    def word(self, cell: Cell, subject: str) -> Word:
        """Yes where every question that was asked passes, no where none does; unknown where none was asked."""
        asked = [record for record in self.records(cell, subject) if record.status not in NOT_ASKED]
        passed = [record for record in asked if record.status == "pass"]
        if not asked:
            return "unknown"
        return "yes" if len(passed) == len(asked) else "partly" if passed else "no"


def is_wrong(record: Record) -> bool:
    """Whether a program or a restored cache gave an answer, and it was another one than the model's."""
    return record.status in WRONG and _DIFFERS.search(record.message) is not None


def has_no_cache(record: Record) -> bool:
    """Whether a model that does not apply was made, but generates without a cache, or is none that generates at all.

    Transformer-XL and a few others of 4.x are no GenerationMixin: there is no cache to carry.
    """
    return record.status in NOT_ASKED and _NO_CACHE.search(record.message) is not None


@dataclass
class Sums:
    """The architectures of a cell, counted for one subject.

    Attributes:
        every: all that the release has.
        made: those of which there is a tiny model that does what the class is for.
        cached: those of them that return a cache: only they are asked anything.
        passed: by question, how many pass.
        wrong: by question, which ones give a wrong answer.
    """

    every: int = 0
    made: int = 0
    cached: int = 0
    passed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(QUESTIONS, 0))
    wrong: dict[str, list[str]] = field(default_factory=lambda: {question: [] for question in QUESTIONS})


def sums(found: Iterable[Architecture], cell: Cell, subject: str) -> Sums:
    """Count the model classes of a cell."""
    total = Sums()
    for architecture in found:
        for model, asked in sorted(architecture.answers.get(cell, {}).get(subject, {}).items()):
            answered = {question: record for question, record in asked.items() if record.status not in NOT_ASKED}
            total.every += 1
            total.made += bool(answered) or any(map(has_no_cache, asked.values()))
            total.cached += bool(answered)
            for question, record in answered.items():
                total.passed[question] += record.status == "pass"
                total.wrong[question] += [model] if is_wrong(record) else []
    return total


def address(model: str) -> str:
    """The address of a model class: `Qwen3MoeForCausalLM` is `qwen3-moe`."""
    stem = _TASK.sub("", model) or model
    return _HUMP.sub("-", stem).lower()


def architectures(tables: Iterable[JudgedTable | None]) -> Mapping[str, Architecture]:
    """Every architecture that some cell was asked about, by its address."""
    found: dict[str, Architecture] = {}
    for judged in tables:
        if judged is None:
            continue
        table = judged.table
        category = table.names("category")
        code = category.index(CATEGORY) if CATEGORY in category else -2
        at = np.flatnonzero(table.codes("category") == code)
        cells = [Cell.parse(name) for name in table.names("cell")]
        for cell, record in zip(table.codes("cell")[at].tolist(), table.records(at), strict=True):
            told = _ID.fullmatch(record.id)
            if told is None:
                continue
            question, model = told.groups()
            one = found.setdefault(address(model), Architecture(address(model)))
            subjects = one.answers.setdefault(cells[cell], {})
            subjects.setdefault(record.subject, {}).setdefault(model, {})[question] = record
    return dict(sorted(found.items()))
