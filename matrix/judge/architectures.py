"""Which architectures export: the answers of the opt-in category `architectures`, by architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from matrix.cells.cell import Cell
from matrix.judge.goals import Word
from matrix.judge.table import JudgedTable
from matrix.records.lines import NOT_ASKED, Record

CATEGORY = "architectures"
QUESTIONS = {"round-trip": "round trip", "exported-decode": "decode", "exported-prefill": "prefill"}
"""The questions of the category, as tables head them."""

_ID = re.compile(r"architectures/([a-z-]+)\[(.+)\]")
_TASK = re.compile(r"(?:For[A-Z][A-Za-z0-9]*|LMHeadModel|Model)$")
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
