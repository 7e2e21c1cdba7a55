"""What failing checks said, for the look-up of an error: each text once, whoever said it."""

from __future__ import annotations

from typing import Any

import numpy as np

from matrix.cells.cell import Cell
from matrix.judge.findings import without_context
from matrix.records.lines import STATUSES, WRONG
from matrix.render.site.facts import Facts
from matrix.render.text import printable

SCHEMA = 1


def messages(facts: Facts) -> dict[str, Any]:
    """Every different message of a check that did not pass, with where it was seen last and in how many cells."""
    table, judged = facts.judged.table, facts.judged
    wrong = np.isin(table.codes("status"), [STATUSES.index(name) for name in WRONG])
    at = np.flatnonzero(wrong)
    texts: dict[str, int] = {}
    group_of = np.array(
        [texts.setdefault(printable(without_context(one)), len(texts)) for one in table.names("message")], np.intp
    )
    if not len(at):
        return {"schema": SCHEMA, "messages": []}
    cells = [Cell.parse(name) for name in table.names("cell")]
    places = {pair: number for number, pair in enumerate(facts.pairs)}
    age = np.array([places[cell.torch, cell.transformers] for cell in cells], np.intp)
    group, cell = group_of[table.codes("message")[at]], table.codes("cell")[at]
    seen = np.unique(group.astype(np.int64) * len(cells) + cell) // len(cells)
    count = np.bincount(seen, minlength=len(texts))
    # The newest pair of each text; of one pair, the first check.
    order = np.lexsort((at, -age[cell], group))
    firsts = order[np.unique(group[order], return_index=True)[1]]
    found = []
    names = list(texts)
    for place, record in zip(firsts.tolist(), table.records(at[firsts]), strict=True):
        row, one = int(judged.row[at[place]]), cells[cell[place]]
        text = names[group[place]]
        if text:
            found.append(
                {
                    "text": text,
                    "subject": record.subject,
                    "check": record.id,
                    "torch": one.torch,
                    "transformers": one.transformers,
                    "cells": int(count[group[place]]),
                    "failure": (judged.rows[row].failure or None) if row >= 0 else None,
                }
            )
    return {"schema": SCHEMA, "messages": found}
