"""The lines of a record: what was asked of a cell's environment, and what it answered.

A record is a file of JSON lines, each flushed when written, so that a run that dies leaves whole lines:

    {"kind": "cell", "schema": 2, "cell": "torch2.5-tf4.53-py3.11-cpu", "torch": "2.5.1+cu124", ...}   the environment
    {"kind": "planned", "checks": [["kvconform", "archive/load"], ...]}                                after collection
    {"kind": "started", "subject": "kvconform", "id": "archive/load"}                                  before a check
    {"kind": "check", "subject": "kvconform", "id": "archive/load", "status": "pass", ...}             after it
    {"kind": "end", "finished": "2026-11-21T23:59:00Z", "outcome": "complete", "counts": {"pass": 1}}

This module holds the types and their lines; `matrix.records.files` reads and writes the files.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

SCHEMA = 2
READABLE = (1, 2)
"""Schema 1 has no digest a check: its answers tell of a suite, not of what they are about."""

Status = Literal["pass", "fail", "error", "crash", "timeout", "skip", "na", "missing"]
"""What happened to a check. `missing` is never written: the reader infers it for a planned check that has no line."""

STATUSES: tuple[Status, ...] = get_args(Status)
NOT_ASKED: frozenset[Status] = frozenset(("skip", "na"))
"""Answers that say nothing about the subject: the release lacks the class, or a policy left the check out."""
WRONG: frozenset[Status] = frozenset(STATUSES) - NOT_ASKED - {"pass"}
"""Answers that need a reason or a repair."""


MOST_SECONDS = 10_000_000


class MalformedError(ValueError):
    """A line that is not what the schema says; the reader adds file, line and next command."""


def take(line: Mapping[str, Any], key: str, *kinds: type) -> Any:
    """The value of a key, which has to be of one of some types; raises MalformedError otherwise."""
    if key not in line:
        raise MalformedError(f'"{key}" is not there')
    value = line[key]
    # bool is an int to Python and a different thing in JSON.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise MalformedError(f'"{key}" is {json.dumps(value)}, expected {wanted}')
    return value


@dataclass(frozen=True)
class Selection:
    """What a run was restricted to. An empty selection asks every check."""

    keyword: str | None = None
    categories: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.keyword or self.categories)

    def __str__(self) -> str:
        parts = [f"--category {name}" for name in self.categories]
        return " ".join([*parts, f"-k {self.keyword!r}"] if self.keyword else parts)

    def to_json(self) -> dict[str, Any]:
        """The value of "selection" in the header line."""
        return {"keyword": self.keyword, "categories": list(self.categories)}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Selection:
        """The inverse of `to_json`; raises MalformedError."""
        return cls(take(line, "keyword", str, type(None)), _strings(line, "categories"))


@dataclass(frozen=True)
class Environment:
    """The header line: which cell, and what its environment held when the checks ran.

    `torch` and the other versions are what was resolved; they are None where no environment could be made.
    """

    cell: str
    torch: str | None = None
    transformers: str | None = None
    python: str | None = None
    platform: str | None = None
    device: str | None = None
    gpu: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    digest: str | None = None
    subjects: tuple[str, ...] = ()
    selection: Selection = Selection()
    started: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The header line."""
        texts = {name: getattr(self, name) for name in TEXTS}
        return {
            "kind": "cell",
            "schema": SCHEMA,
            "cell": self.cell,
            **texts,
            "packages": dict(self.packages),
            "subjects": list(self.subjects),
            "selection": self.selection.to_json(),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Environment:
        """The inverse of `to_json`; raises MalformedError."""
        schema = take(line, "schema", int)
        if schema not in READABLE:
            raise MalformedError(f"schema {schema} is not the schema {SCHEMA} that this kvconform reads")
        packages = take(line, "packages", dict, type(None)) or {}
        selection = take(line, "selection", dict, type(None)) or Selection().to_json()
        return cls(
            cell=take(line, "cell", str),
            **{name: take(line, name, str, type(None)) for name in TEXTS},
            packages={name: take(packages, name, str) for name in packages},
            subjects=_strings(line, "subjects"),
            selection=Selection.from_json(selection),
        )


def usual_command(subject: str, check: str) -> str:
    """The command that puts one check to one subject again, as the suite tells it of a cell without a GPU."""
    return f"python -m kvconform check --subject {shlex.quote(subject)} -k '{check}'"


TEXTS = ("torch", "transformers", "python", "platform", "device", "gpu", "commit", "digest", "started")


@dataclass(frozen=True)
class Record:
    """One check put to one subject, and its answer.

    Attributes:
        sources: the digest of the sources that the answer is about; empty where it does not tell.
        asked: when it was asked, where a later run took it over; empty where it was asked in its run.
    """

    subject: str
    id: str
    category: str
    status: Status
    seconds: float = 0.0
    message: str = ""
    reproduce: str = ""
    sources: str = ""
    asked: str = ""

    def to_json(self) -> dict[str, Any]:
        """The check line."""
        return {"kind": "check", **{name: getattr(self, name) for name in self.__dataclass_fields__}}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`; raises MalformedError."""
        status = take(line, "status", str)
        if status not in STATUSES or status == "missing":
            raise MalformedError(f'"status" is "{status}", expected one of {", ".join(STATUSES[:-1])}')
        return cls(
            subject=take(line, "subject", str),
            id=take(line, "id", str),
            category=take(line, "category", str),
            status=status,
            seconds=_seconds(take(line, "seconds", int, float)),
            message=take(line, "message", str),
            reproduce=take(line, "reproduce", str),
            **{name: take(line, name, str) for name in ("sources", "asked") if name in line},
        )


@dataclass(frozen=True)
class CellRun:
    """One run of one cell.

    Attributes:
        environment: the header line.
        records: one for each planned check, in the order of the plan; `missing` where the file holds no answer.
        complete: the run reached its end. An incomplete run is shown as such and never earns a tick.
        unresolved: why no environment could be made, or None.
        finished: when the run ended (ISO 8601, UTC), or None.
    """

    environment: Environment
    records: tuple[Record, ...] = ()
    complete: bool = False
    unresolved: str | None = None
    finished: str | None = None

    @property
    def cell(self) -> str:
        """The id of the cell."""
        return self.environment.cell

    @property
    def whole(self) -> bool:
        """Whether every check was asked and the run reached its end. In any other run, checks may be absent."""
        return self.complete and not self.environment.selection and self.unresolved is None

    def to_lines(self) -> list[dict[str, Any]]:
        """The lines of the file that reads back as this run."""
        lines = [self.environment.to_json()]
        if self.unresolved is not None:
            lines.append({"kind": "unresolved", "reason": self.unresolved})
        else:
            lines.append({"kind": "planned", "checks": [[record.subject, record.id] for record in self.records]})
            lines += [_line_of(record) for record in self.records if record.status != "missing" or record.message]
        if self.complete:
            lines.append({"kind": "end", "finished": self.finished, "outcome": "complete", "counts": self.counts()})
        return lines

    def counts(self) -> dict[str, int]:
        """How many checks have each status, as the end line has it: those without an answer are not counted."""
        statuses = [record.status for record in self.records]
        return {name: statuses.count(name) for name in STATUSES if name in statuses and name != "missing"}


def dump(run: CellRun) -> str:
    """The text of a record file, keys sorted."""
    return "".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in run.to_lines())


def _line_of(record: Record) -> dict[str, Any]:
    if record.status == "missing":
        return {"kind": "started", "subject": record.subject, "id": record.id}
    return record.to_json()


def _strings(line: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = take(line, key, list, type(None)) or []
    if not all(isinstance(value, str) for value in values):
        raise MalformedError(f'"{key}" is {json.dumps(values)}, expected a list of strings')
    return tuple(values)


def _seconds(value: float) -> float:
    """A time that a check can take."""
    if not 0 <= value < MOST_SECONDS:
        raise MalformedError('"seconds" is no time that a check can take')
    return float(value)
