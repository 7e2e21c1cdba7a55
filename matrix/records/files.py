"""Record files into runs.

A line that is malformed, out of order or written twice is an error, since it could become a wrong tick. A file that
ends early is not: its run was interrupted, and the checks without an answer are `missing`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix.cells.cell import Cell
from matrix.errors import UserError
from matrix.records.lines import CellRun, Environment, MalformedError, Record, Selection, Status, dump, take
from matrix.records.writing import put

__all__ = ["CellRun", "Environment", "Record", "Selection", "Status", "read", "write_unresolved"]

Key = tuple[str, str]
"""Subject and check id."""

STARTED = "started, never ended"
NEVER_STARTED = "planned, never started"


LONGEST_LINE = 20_000_000
"""Bytes: a longer line is no answer of a check."""
LONGEST_REASON = 300
"""Characters of an error."""


def read(path: Path) -> CellRun:
    """The run that a record file holds.

    A planned check without an answer becomes `missing`. The last line may be torn (its writer died): it counts as not
    written, and its check as missing.

    Raises:
        UserError: a line is malformed, out of order, or answers a check twice; the message names file and line.
    """
    reading = _Reading()
    number = 0
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                if number > 1 and _torn(raw):
                    break
                reading.take(_parse(raw))
        return reading.run()
    except MalformedError as error:
        raise UserError(f"{path}:{number}: {_short(str(error))}", _again(path)) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", _again(path)) from None


def write_unresolved(path: Path, cell: Cell, reason: str) -> None:
    """Record that no environment could be made for a cell, and why."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    run = CellRun(Environment(cell.id, started=now), complete=True, unresolved=reason, finished=now)
    put(path, dump(run))


@dataclass
class _Reading:
    """What the lines read so far say."""

    environment: Environment | None = None
    planned: list[Key] | None = None
    plan: frozenset[Key] = frozenset()
    started: set[Key] = field(default_factory=set)
    answers: dict[Key, Record] = field(default_factory=dict)
    unresolved: str | None = None
    end: str | None = None
    finished: str | None = None

    def take(self, line: dict[str, Any]) -> None:
        kind = take(line, "kind", str)
        if self.end is not None:
            raise MalformedError(f'a "{kind}" line follows the "end" line')
        if kind == "cell" and self.environment is not None:
            raise MalformedError('a second "cell" line')
        if kind != "cell" and self.environment is None:
            raise MalformedError(f'a "{kind}" line comes before the "cell" line')
        readers = {
            "cell": self._cell,
            "planned": self._planned,
            "started": self._started,
            "check": self._check,
            "unresolved": self._unresolved,
            "end": self._end,
        }
        if kind not in readers:
            raise MalformedError(f'"kind" is "{kind}", expected one of {", ".join(readers)}')
        readers[kind](line)

    def run(self) -> CellRun:
        """The run, its records in the order of the plan: a parallel run answers in any order."""
        if self.environment is None:
            raise MalformedError("the file is empty")
        return CellRun(
            environment=self.environment,
            records=tuple(self.answers.get(key) or self._missing(key) for key in self.planned or ()),
            complete=self.end == "complete",
            unresolved=self.unresolved,
            finished=self.finished,
        )

    def _cell(self, line: dict[str, Any]) -> None:
        self.environment = Environment.from_json(line)
        _expect_named_after(self.environment)

    def _planned(self, line: dict[str, Any]) -> None:
        if self.planned is not None:
            raise MalformedError('a second "planned" line')
        pairs = take(line, "checks", list)
        if not all(_is_key(pair) for pair in pairs):
            raise MalformedError('"checks" is expected to hold [subject, id] pairs')
        self.planned = [(subject, name) for subject, name in pairs]
        self.plan = frozenset(self.planned)
        if len(self.plan) < len(self.planned):
            key, _ = Counter(self.planned).most_common(1)[0]
            raise MalformedError(f"{' '.join(key)} is planned twice")

    def _started(self, line: dict[str, Any]) -> None:
        self.started.add(self._known((take(line, "subject", str), take(line, "id", str))))

    def _check(self, line: dict[str, Any]) -> None:
        record = Record.from_json(line)
        key = self._known((record.subject, record.id))
        if key in self.answers:
            raise MalformedError(f"{' '.join(key)} is answered twice")
        self.answers[key] = record

    def _unresolved(self, line: dict[str, Any]) -> None:
        self.unresolved = take(line, "reason", str)

    def _end(self, line: dict[str, Any]) -> None:
        outcome = take(line, "outcome", str)
        if outcome not in ("complete", "interrupted"):
            raise MalformedError(f'"outcome" is "{outcome}", expected complete or interrupted')
        if outcome == "complete" and self.planned is None and self.unresolved is None:
            raise MalformedError("the run calls itself complete and planned nothing")
        counts = {name: count for name, count in take(line, "counts", dict).items() if count and name != "missing"}
        counted = CellRun(Environment(""), tuple(self.answers.values())).counts()
        # A line lost in the middle of a file would otherwise read as a check that never ran.
        if counts != counted:
            raise MalformedError(f'"counts" says {json.dumps(counts)}, the check lines say {json.dumps(counted)}')
        self.end = outcome
        self.finished = take(line, "finished", str, type(None))

    def _known(self, key: Key) -> Key:
        if key not in self.plan:
            raise MalformedError(f"{' '.join(key)} was not planned")
        return key

    def _missing(self, key: Key) -> Record:
        subject, name = key
        message = STARTED if key in self.started else NEVER_STARTED
        return Record(subject, name, name.partition("/")[0], "missing", message=message)


def _parse(raw: bytes) -> dict[str, Any]:
    if len(raw) > LONGEST_LINE:
        raise MalformedError(f"a line of {len(raw) // 1_000_000} MB, more than {LONGEST_LINE // 1_000_000} MB")
    if b"\0" in raw:
        raise MalformedError("it holds NUL bytes")
    try:
        line = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refused)
        if b"\\u" in raw:
            # The recorder writes no half of a surrogate pair: only a damaged file has one, and no page could hold it.
            json.dumps(line, ensure_ascii=False).encode("utf-8")
    except MalformedError:
        raise
    except UnicodeEncodeError:
        raise MalformedError("a text holds half a surrogate pair") from None
    except UnicodeDecodeError:
        raise MalformedError("not UTF-8") from None
    except RecursionError:
        raise MalformedError("not a line of JSON: it is nested too deep") from None
    except ValueError as error:
        raise MalformedError(f"not a line of JSON: {error}") from None
    if not isinstance(line, dict):
        raise MalformedError("not a JSON object")
    return line


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise MalformedError(f'"{name}" is there twice')
    return found


def _refused(constant: str) -> None:
    raise MalformedError(f"{constant} is no number of JSON")


def _torn(raw: bytes) -> bool:
    """Whether a line lost its end: no newline, and it does not parse. NUL bytes are damage of another kind."""
    if raw.endswith(b"\n") or b"\0" in raw:
        return False
    try:
        _parse(raw)
    except MalformedError:
        return True
    return False


def _is_key(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)  # noqa: PLR2004


def _expect_named_after(environment: Environment) -> None:
    """Refuse a record whose environment is not the one that its cell names: its answers are about another cell."""
    try:
        cell = Cell.parse(environment.cell)
    except UserError as error:
        raise MalformedError(error.message) from None
    for name, axis, found in (
        ("torch", cell.torch, environment.torch),
        ("transformers", cell.transformers, environment.transformers),
        ("python", cell.python, environment.python),
    ):
        named = axis.split(".")
        if found is not None and named[0].isdigit() and found.split("+")[0].split(".")[: len(named)] != named:
            raise MalformedError(f"the cell {environment.cell} ran {name} {found}")


def _short(text: str) -> str:
    """One line that a terminal can show: an error may quote a value of the file, of any length and kind."""
    line = " ".join(text.split())
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def _again(path: Path) -> str:
    return f"python -m matrix run --rerun --select {path.stem}"
