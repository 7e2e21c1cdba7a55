"""`python -m kvconform check --repeat N`: the same answers N times, in any order, and for a check by itself.

The first run is in the suite's order, the others are shuffled with the seeds 1 to N - 1; then a few checks run alone,
each in a process of its own. A status that differs from the first run's is printed with how to see it again.

Exit codes: 0 all the same, 1 some differ, otherwise what the first run that could not run ended with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

Statuses = dict[tuple[str, str], str]
"""The status by subject and check id."""

ALONE = 6
"""Checks that run by themselves: evenly spread over the ids, since each costs the import of torch."""


class RunFailedError(Exception):
    """A run ended without a whole record; `code` is its exit code."""

    def __init__(self, command: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {code}: {output.strip()[-400:]}")
        self.code = code


def repeat(arguments: Sequence[str], runs: int) -> int:
    """Run the suite `runs` times with these options of `check`, compare, and print what differs."""
    try:
        first = _statuses(arguments)
        print(f"run 1 of {runs}: {len(first)} checks, in the suite's order", flush=True)  # noqa: T201
        found = [*_shuffled(arguments, first, runs), *_alone(arguments, first)]
    except RunFailedError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.code
    for line in found:
        print(line)  # noqa: T201
    print(f"{runs} runs of {len(first)} checks: {len(found)} statuses differ from the first run's")  # noqa: T201
    return 1 if found else 0


def _shuffled(arguments: Sequence[str], first: Statuses, runs: int) -> Iterator[str]:
    for seed in range(1, runs):
        again = [*arguments, f"--shuffle={seed}"]
        found = list(differences(first, _statuses(again), f"--shuffle={seed}"))
        print(f"run {seed + 1} of {runs}: shuffled with seed {seed}, {len(found)} differ", flush=True)  # noqa: T201
        yield from found


def _alone(arguments: Sequence[str], first: Statuses) -> Iterator[str]:
    ran = [key for key, status in first.items() if status not in {"na", "skip"}]
    for subject, check in ran[:: max(1, len(ran) // ALONE)][:ALONE]:
        # Later options win: the last -k and the only subject are this check's.
        own = [text for text in arguments if not text.startswith(("--subject", "--category"))]
        asked = [*own, f"--subject={subject}", "-k", check]
        yield from differences({(subject, check): first[subject, check]}, _statuses(asked), "alone")


def differences(first: Statuses, again: Statuses, how: str) -> Iterator[str]:
    """A line for every check whose status is another one, or that ran only once."""
    for key in sorted(first.keys() | again.keys()):
        one, other = first.get(key, "not run"), again.get(key, "not run")
        if one != other:
            yield f"{key[0]} {key[1]}: {one}, then {other} ({how})"


def _statuses(arguments: Sequence[str]) -> Statuses:
    with tempfile.TemporaryDirectory(prefix="kvconform-repeat-") as folder:
        record = Path(folder) / "record.jsonl"
        command = [sys.executable, "-m", "kvconform", "check", *arguments, "--quiet", f"--record={record}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
        if done.returncode not in {0, 1} or not record.exists():
            raise RunFailedError(command[1:], done.returncode, done.stderr)
        lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    return {(line["subject"], line["id"]): line["status"] for line in lines if line["kind"] == "check"}
