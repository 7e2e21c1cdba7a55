"""What opt-in categories answer, as a table of its own: other runtimes, and every category beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from matrix.cells.cell import Cell
from matrix.judge.architectures import CATEGORY
from matrix.judge.baseline import PATCHED
from matrix.judge.table import JudgedTable
from matrix.records.lines import NOT_ASKED, Record
from matrix.render import wording
from matrix.render.grid import Results
from matrix.render.tables import inline, markdown_table

NAME = "on-request.md"
RUNTIMES = {
    "generate/as-the-model": "torch.export",
    "generate/after-loading": "saved and loaded",
    "onnx/as-the-model": "onnxruntime",
    "aoti/as-the-model": "AOTInductor",
    "executorch/as-the-model": "ExecuTorch",
}
"""The checks that compare generated tokens, and what runs the programs in them."""
MOST_REASONS = 12
_ID = re.compile(r"(.+)\[(.+)\]")
_TOKENS = """Programs of one call generate 64 tokens, at two batches, padded on the left, past every window;
ExecuTorch takes one row without padding. ✓: they are those of `model.generate()`. With the context `{subject}`."""


@dataclass
class _Asked:
    """The answers of a cell."""

    cell: Cell
    records: list[Record] = field(default_factory=list)


def files(results: Results) -> dict[str, str]:
    """The file by name; none where nobody was asked."""
    lanes = [one for one in _lanes(results.extra) if one.records]
    return {NAME: _markdown(lanes)} if lanes else {}


def _lanes(extra: JudgedTable | None) -> list[_Asked]:
    """The cells, the newest transformers first; every architecture has a table of its own."""
    if extra is None:
        return []
    table = extra.table
    lanes = [_Asked(Cell.parse(name)) for name in table.names("cell")]
    codes = table.codes("cell")
    for code, record in zip(codes.tolist(), table.records(np.arange(len(codes))), strict=True):
        if record.category != CATEGORY:
            lanes[code].records.append(record)
    return sorted(lanes, key=lambda one: one.cell.order[1::-1], reverse=True)


def _markdown(lanes: list[_Asked]) -> str:
    parts = ["# What is asked on request"]
    tokens = [row for lane in lanes for row in _tokens(lane)]
    if tokens:
        parts += ["## The same tokens in every runtime", _TOKENS.format(subject=PATCHED)]
        parts.append(markdown_table([["transformers", "torch", "model", *RUNTIMES.values()], *tokens]))
    subjects = list(dict.fromkeys(record.subject for lane in lanes for record in lane.records))
    head = ["transformers", "torch", "category", *map(wording.subject_name, subjects)]
    parts += ["## Category by category", "How many of the checks that were asked pass.", _KEY]
    parts.append(markdown_table([head, *(row for lane in lanes for row in _categories(lane, subjects))]))
    reasons = [line for lane in lanes for line in _reasons(lane)]
    parts += [f"## What does not pass with the context `{PATCHED}`", "\n".join(reasons) or "Nothing."]
    return "\n\n".join(parts) + "\n"


_KEY = "Empty: it was not asked."


def _tokens(lane: _Asked) -> Iterator[list[str]]:
    """A line a model: what each runtime generates with the subject that does most."""
    found: dict[str, dict[str, Record]] = {}
    for record in lane.records:
        told = _ID.fullmatch(record.id)
        if told and told[1] in RUNTIMES and record.subject == PATCHED:
            found.setdefault(told[2], {})[told[1]] = record
    for model, answers in found.items():
        signs = [_sign(answers.get(check)) for check in RUNTIMES]
        yield [lane.cell.transformers, lane.cell.torch, model, *signs]


def _sign(record: Record | None) -> str:
    if record is None:
        return ""
    return {"pass": "✓", "fail": "✗", "na": "n/a"}.get(record.status, record.status)


def _categories(lane: _Asked, subjects: Iterable[str]) -> Iterator[list[str]]:
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for record in lane.records:
        passed, asked = counts.setdefault(record.category, {}).get(record.subject, (0, 0))
        more = (passed + (record.status == "pass"), asked + (record.status not in NOT_ASKED))
        counts[record.category][record.subject] = more
    for category, found in sorted(counts.items()):
        yield [lane.cell.transformers, lane.cell.torch, category, *(_count(found, subject) for subject in subjects)]


def _count(found: Mapping[str, tuple[int, int]], subject: str) -> str:
    passed, asked = found.get(subject, (0, 0))
    return f"{passed}/{asked}" if asked else "n/a" if subject in found else ""


def _reasons(lane: _Asked) -> Iterator[str]:
    where = f"transformers {lane.cell.transformers}, torch {lane.cell.torch}"
    left = [
        record for record in lane.records if record.subject == PATCHED and record.status not in {"pass", *NOT_ASKED}
    ]
    for record in left[:MOST_REASONS]:
        yield f"- {where}: `{record.id}` ({record.status}): {inline(record.message)[:400]}"
    if len(left) > MOST_REASONS:
        yield f"- {where}: {len(left) - MOST_REASONS} more"
