"""`python -m kvconform explain "MESSAGE"`: is my error known, whose fault is it, and what to do.

Reads the message, or a whole log from standard input, and looks in it for the texts by which the known failures tell of
themselves, after everything that differs from run to run was made alike. The site's page does the same with the same
data; both are tested with the same messages.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kvconform import classes
from kvconform.classes import Classes
from kvconform.known import Failure, Known, load

__all__ = ["Answer", "explain", "main", "normalise"]

LONGEST = 1_000_000
"""Characters of a log that are read: its last ones, where the error is."""

# The site's script has the same steps in the same order; all are about ASCII, on which both languages agree.
_STEPS = (
    (re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), ""),
    # What pytest and torchrun write before each line of a traceback.
    (re.compile(r"(^|\n)(?:[ \t]*E[ \t]|[ \t]*\[rank[0-9]+\]:)"), r"\1"),
    # Folders: the file's name stays.
    (re.compile(r"(?:[A-Za-z0-9_.~+@-]*[/\\])+"), ""),
    (re.compile(r"0x[0-9a-fA-F]+"), "#"),
    # torch's symbols: s0, u3, zuf0.
    (re.compile(r"\b(?:zuf|zf|[suz])[0-9]+\b", re.ASCII), "$"),
    (re.compile(r"\b[0-9]+(?:\.[0-9]+)*\b", re.ASCII), "#"),
    (re.compile('[`"\u2018\u2019\u201c\u201d]'), "'"),
    (re.compile(r"[ \t\r\n\f\v]+"), " "),
)


def normalise(text: str) -> str:
    """A message without what differs from run to run: addresses, numbers, symbols, folders, quotes, case, spaces."""
    for pattern, instead in _STEPS:
        text = pattern.sub(instead, text)
    return re.sub("[A-Z]", lambda letter: letter[0].lower(), text).strip(" ")


@dataclass(frozen=True)
class Answer:
    """What is known of a message.

    Attributes:
        failure: the known failure that it tells of, or None.
        perhaps: failures that it may tell of, each with the condition under which it does; empty beside a `failure`.
        detail: what the message misses, which releases have it, and what to write instead; or an empty text.
    """

    failure: Failure | None = None
    perhaps: tuple[tuple[Failure, str], ...] = ()
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """The answer as `--json` prints it."""
        return {
            "known": self.failure.to_json() if self.failure else None,
            "detail": self.detail,
            "perhaps": [{**failure.to_json(), "condition": when} for failure, when in self.perhaps],
        }


def explain(message: str, known: Known, table: Classes | None = None) -> Answer:
    """Find the failure that a message tells of.

    Of several whose texts the message holds, the one with the most text wins.

    Args:
        message: an error message, or a log with one in it.
        known: the known failures (`kvconform.known.load`).
        table: what the cache classes of each release have (`kvconform.classes.load`, which is also the default).

    Returns:
        The failure, else those that it may be, else an empty answer.
    """
    text = normalise(message[-LONGEST:])
    sure: list[tuple[int, Failure, str]] = list(_missing(text, known, table or classes.load()))
    perhaps: dict[str, tuple[Failure, str]] = {}
    for failure in known.failures:
        for says in failure.says:
            literals = [normalise(part) for part in says.all]
            if not all(part in text for part in literals) or any(normalise(part) in text for part in says.unless):
                continue
            if says.perhaps:
                perhaps.setdefault(failure.page, (failure, says.perhaps))
            else:
                sure.append((sum(map(len, literals)), failure, ""))
    if sure:
        # `max` keeps the first of equals, as the script does.
        _, failure, detail = max(sure, key=lambda found: found[0])
        return Answer(failure, detail=detail)
    return Answer(perhaps=tuple(perhaps.values()))


def _missing(text: str, known: Known, table: Classes) -> Iterator[tuple[int, Failure, str]]:
    """The failure that code asks a cache for what other releases have, with what it asks for."""
    found = classes.missing(text, table)
    for failure in known.failures:
        if found and failure.page == classes.PAGE:
            instead = failure.instead.get(found.attribute, "")
            more = f" Instead: {instead}" if instead else ""
            yield found.length, failure, f"{found.what} is in transformers {found.where}.{more}"


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 0 known, 1 not known for sure, 2 usage."""
    parser = argparse.ArgumentParser(prog="kvconform explain", description=__doc__)
    parser.add_argument("message", nargs="*", help="the message; without it, a log is read from standard input")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    options = parser.parse_args(arguments)
    message = " ".join(options.message) or _standard_input()
    if not message.strip():
        sys.stderr.write('error: no message: python -m kvconform explain "MESSAGE", or a log on standard input\n')
        return 2
    known = load()
    answer = explain(message, known)
    sys.stdout.write((json.dumps(answer.to_json(), indent=2) if options.json else _text(answer, known)) + "\n")
    return 0 if answer.failure else 1


def _standard_input() -> str:
    """The log that is piped in; its bytes need not be text."""
    if sys.stdin.isatty():
        return ""
    return sys.stdin.buffer.read().decode("utf-8", errors="replace")


def _text(answer: Answer, known: Known) -> str:
    if answer.failure:
        return "\n".join([f"Known: {answer.failure.title}.", *_lines(answer.failure, answer.detail)])
    if answer.perhaps:
        lines = ["Not known for sure. It may be:"]
        for failure, when in answer.perhaps:
            lines += ["", f"{failure.title}, if {when}.", *_lines(failure)]
        return "\n".join(lines)
    return (
        f"Unknown: none of the {len(known.failures)} known failures says this.\n"
        "What this environment can do: python -m kvconform doctor. Is it the export itself? Put it to the suite: "
        "python -m kvconform check"
    )


def _lines(failure: Failure, detail: str = "") -> list[str]:
    """What to know of a failure; a detail tells the releases itself."""
    measured = [
        f"  whose fault   {failure.fault}",
        f"  first bad     {failure.first_bad or 'older than what was measured'}",
        f"  first good    {failure.first_good or 'none yet'}",
        f"  seen with     {failure.seen or 'not seen in any measured pair'}",
    ]
    lines = [f"  in detail     {detail}"] if detail else measured
    lines += [f"  what to do    {failure.fix}", *(f"      {line}" for line in failure.code.splitlines())]
    return [*lines, f"  the page      docs/known-failures/{failure.page}.md, /failure/{failure.page}/ of the site"]
