"""Writes the record of a run: JSON lines, each flushed when written, so that a crash loses nothing that was known."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import kvconform
import kvconform_conformance
from kvconform_conformance.runner.carry import Asked

STATUSES = ("pass", "fail", "error", "crash", "timeout", "skip", "na")
FAILED = frozenset({"fail", "error", "crash", "timeout"})
MESSAGE_LIMIT = 2000


def now() -> str:
    """The time in UTC, to the second, as records have it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class RecordError(Exception):
    """The record can no longer be written, for a full disk say. What stands in it already is good."""


@dataclass(frozen=True)
class Outcome:
    """What happened to one check of one subject."""

    subject: str
    id: str
    status: str
    seconds: float = 0.0
    message: str = ""

    @property
    def category(self) -> str:
        """The part of the id before the slash."""
        return self.id.split("/", 1)[0]

    def to_json(self, device: str) -> dict[str, Any]:
        """The fields of a record's check line."""
        option = " --device cuda" if device == "cuda" else ""
        return {
            "subject": self.subject,
            "id": self.id,
            "category": self.category,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "message": clean(self.message),
            "reproduce": f"python -m kvconform check --subject {shlex.quote(self.subject)}{option} -k '{self.id}'",
        }


def _machine_prefixes() -> list[str]:
    """Folders of this machine that a message must not carry, longest first."""
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib")}
    paths |= {sys.prefix, sys.base_prefix, str(Path.cwd()), str(Path.home())}
    for places in (kvconform.__path__, kvconform_conformance.__path__):
        paths.add(str(Path(places[0]).resolve().parent))
    return sorted((f"{path.rstrip('/')}/" for path in paths if path and path != "/"), key=len, reverse=True)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_PREFIXES = _machine_prefixes()


def clean(message: str) -> str:
    """Cut machine paths and excess length, and replace what UTF-8 cannot hold (lone surrogates, control characters)."""
    text = _CONTROL.sub("?", message.encode("utf-8", "replace").decode("utf-8"))
    for prefix in _PREFIXES:
        text = text.replace(prefix, "")
    text = text.strip()
    if len(text) <= MESSAGE_LIMIT:
        return text
    return f"{text[:MESSAGE_LIMIT]}... ({len(text) - MESSAGE_LIMIT} more characters)"


@dataclass
class Recorder:
    """Streams one run to a file (or nowhere) and keeps the outcomes for the summary."""

    stream: IO[str] | None
    device: str = "cpu"
    asked: Asked = field(default_factory=lambda: Asked({}, {}))
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    planned: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    lost: str = ""
    """Why the record could not be written to its end; empty where it could."""

    @classmethod
    def open(cls, path: Path | None, device: str) -> Recorder:
        """Start a record at `path`, replacing what was there; `None` keeps it in memory only."""
        if path is None:
            return cls(None, device)
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path.open("w", encoding="utf-8"), device)

    def write(self, kind: str, fields: dict[str, Any]) -> None:
        """Write one line and flush it.

        Raises:
            RecordError: the file cannot be written. The line is lost, and no other is tried.
        """
        if self.stream is None or self.ended:
            return
        try:
            self.stream.write(json.dumps({"kind": kind, **fields}, sort_keys=True, ensure_ascii=False) + "\n")
            self.stream.flush()
        except OSError as error:
            self.lost = f"the record {self.stream.name} cannot be written: {error.strerror}"
            with contextlib.suppress(OSError):
                # Closing tries once more to write what is left.
                self.stream.close()
            self.stream = None
            raise RecordError(self.lost) from error

    def plan(self, checks: list[tuple[str, str]]) -> None:
        """Write what is to be answered, and the answers that are taken over.

        Only the first of several workers' identical collections counts.
        """
        if self.planned:
            return
        self.planned = [*self.asked.lines, *checks]
        self.write("planned", {"checks": [list(check) for check in self.planned]})
        for key, line in self.asked.lines.items():
            self.outcomes[key] = Outcome(*key, line["status"], line["seconds"], line["message"])
            self.write("check", line)

    def start(self, subject: str, check: str) -> None:
        """Write that a check is about to run, so that one which never ends is seen."""
        self.write("started", {"subject": subject, "id": check})

    def finish(self, outcome: Outcome) -> None:
        """Write what happened to a check, once: the first outcome of a check stands."""
        key = (outcome.subject, outcome.id)
        if key not in self.outcomes:
            self.outcomes[key] = outcome
            digest = self.asked.digest(outcome.subject, outcome.category)
            self.write("check", {**outcome.to_json(self.device), "sources": digest, "asked": ""})

    def counts(self) -> dict[str, int]:
        """How many checks had each status, in the order of the statuses."""
        counter = Counter(outcome.status for outcome in self.outcomes.values())
        return {status: counter[status] for status in STATUSES if counter[status]}

    def end(self, outcome: str) -> None:
        """Write the last line, once, and close the file."""
        if self.ended:
            return
        self.write("end", {"finished": now(), "outcome": outcome, "counts": self.counts()})
        self.ended = True
        if self.stream is not None:
            self.stream.close()
