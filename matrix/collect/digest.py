"""Digests of the sources that answers depend on: two answers with the same digest were made by the same code."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from matrix.errors import UserError
from matrix.records.lines import CellRun

SOURCES = ("conformance", "src")
"""The folders whose code a cell runs."""
REACH = "kvconform_conformance.runner.reach"
"""The module of the suite that tells its digests; it is run, never imported."""

Counts = Mapping[tuple[str, str, str], int]
"""How many answers there are of a subject, in a category, about a digest."""


@dataclass(frozen=True)
class Suite:
    """The present sources.

    Attributes:
        digest: one for everything that an answer can depend on.
        checks: by subject, then by category.
    """

    digest: str
    checks: Mapping[str, Mapping[str, str]]

    @property
    def categories(self) -> frozenset[str]:
        """The categories that the suite has."""
        return frozenset(name for found in self.checks.values() for name in found)

    def current(self, counts: Counts) -> int:
        """How many of some answers are about the present sources; one without a digest is not."""
        return sum(n for (subject, category, digest), n in counts.items() if self._is(subject, category, digest))

    def _is(self, subject: str, category: str, digest: str) -> bool:
        return bool(digest) and self.checks.get(subject, {}).get(category) == digest


@functools.cache
def suite(root: Path) -> Suite:
    """The present sources of a checkout.

    Raises:
        UserError: a source cannot be parsed.
    """
    command = [sys.executable, "-S", "-m", REACH]
    variables = {**os.environ, "PYTHONPATH": str(root / "conformance")}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=variables)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or [f"code {answer.returncode}"])[-1]
        raise UserError(f"the sources of the suite cannot be read: {last}", f"PYTHONPATH=conformance python -m {REACH}")
    told = json.loads(answer.stdout)
    return Suite(told["suite"], told["checks"])


def counts(runs: Iterable[CellRun]) -> Counter[tuple[str, str, str]]:
    """How many answers of some runs there are, by what they are about."""
    return Counter((record.subject, record.category, record.sources) for run in runs for record in run.records)


def suite_digest(root: Path) -> str:
    """The SHA-256 over every Python file that a cell runs, paths and bytes, in the order of the paths.

    Args:
        root: the folder of the checkout.

    Returns:
        64 hexadecimal digits; the same on every machine for the same files.
    """
    total = hashlib.sha256()
    files = [path for name in SOURCES for path in (root / name).rglob("*.py")]
    for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()
