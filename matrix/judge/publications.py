"""What each publication of records changed against the one before it, by cause: `reports/publications.json`.

`python -m matrix publish` writes a publication when it takes answers over, from the records that were published and
those that are now; the site and its feed read them. A publication is dated by the latest of its answers, not by a
clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matrix.errors import UserError
from matrix.judge.baseline import Baseline
from matrix.judge.compare import Change, causes, compare_runs
from matrix.records.lines import CellRun
from matrix.records.writing import put

SCHEMA = 1
NAME = "publications.json"
"""The file, beside the published records."""
MOST = 20
"""Publications that are kept."""
MOST_CAUSES = 60
"""Causes of a publication that are kept, the worst kinds first."""
MOST_EXAMPLES = 4
MOST_LETTERS = 400


@dataclass(frozen=True)
class Cause:
    """Checks of one subject that answer otherwise than before, alike and for one reason.

    Attributes:
        kind: as `matrix compare` names it.
        subject: the subject; empty where the cause is about whole cells.
        failure: the known failure behind it, or an empty text.
        message: what the first of them says, where it does not pass.
        old: what the first of them answered before, empty where it was not there; `new` what it answers now.
        checks: how many checks; `examples` some of them.
        cells: the cells.
    """

    kind: str
    subject: str
    failure: str
    message: str
    old: str
    new: str
    checks: int
    examples: tuple[str, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Publication:
    """One publication.

    Attributes:
        date: the day of its latest answer.
        cells: the cells whose answers were taken over.
        suites: the digests of the suites that gave them.
        causes: what changed, the worst kind first, `left_out` causes after those that are kept.
    """

    date: str
    cells: tuple[str, ...]
    suites: tuple[str, ...]
    causes: tuple[Cause, ...]
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """The publication as the file has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Publication:
        """The inverse of `to_json`; raises KeyError or TypeError."""
        causes = tuple(
            Cause(**{**each, "examples": tuple(each["examples"]), "cells": tuple(each["cells"])})
            for each in data["causes"]
        )
        texts = {name: tuple(data[name]) for name in ("cells", "suites")}
        return cls(data["date"], **texts, causes=causes, left_out=data["left_out"])


def publication(old: Sequence[CellRun], new: Sequence[CellRun], baseline: Baseline) -> Publication:
    """What the runs that are new changed.

    Args:
        old: what was published, one run a cell.
        new: what is published now, one run a cell.
        baseline: which known failure a check has.
    """
    before = {run.cell: run for run in old}
    taken = [run for run in new if before.get(run.cell) != run]
    about = [run.environment for run in taken]
    every = causes(compare_runs(old, new, baseline).changes)
    found = [_cause(each) for each in every[:MOST_CAUSES]]
    return Publication(
        date=max((one.started or "" for one in about), default="")[:10],
        cells=tuple(run.cell for run in taken),
        suites=tuple(sorted({one.digest for one in about if one.digest})),
        causes=tuple(found),
        left_out=len(every) - len(found),
    )


def _cause(changes: Sequence[Change]) -> Cause:
    first, checks = changes[0], list(dict.fromkeys(change.id for change in changes if change.id))
    return Cause(
        kind=first.kind,
        subject=first.subject,
        failure=first.failure,
        message=first.message[:MOST_LETTERS],
        old=first.old,
        new=first.new,
        checks=len(checks),
        examples=tuple(checks[:MOST_EXAMPLES]),
        cells=tuple(dict.fromkeys(change.cell for change in changes)),
    )


def load(path: Path) -> list[Publication]:
    """The publications of a file, the latest first; none where there is no file.

    Raises:
        UserError: the file is malformed.
    """
    if not path.is_file():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise UserError(f"{path} has schema {document['schema']!r}, this reads {SCHEMA}", f"git diff -- {path}")
        return [Publication.from_json(each) for each in document["publications"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error!r}", f"git checkout -- {path}") from None


def save(path: Path, publications: Iterable[Publication]) -> None:
    """Write publications, the latest first; those beyond `MOST` are forgotten."""
    document = {"schema": SCHEMA, "publications": [each.to_json() for each in publications][:MOST]}
    put(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
