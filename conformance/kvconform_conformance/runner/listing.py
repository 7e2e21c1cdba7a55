"""Reads the ids of the suite, with a line of explanation each, without running anything."""

from __future__ import annotations

import contextlib
import fnmatch
import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from kvconform_conformance.runner import optin
from kvconform_conformance.runner.plugin import split_nodeid


@dataclass(frozen=True)
class Check:
    """One question of the suite."""

    id: str
    explanation: str

    @property
    def category(self) -> str:
        """The part of the id before the slash."""
        return self.id.split("/", 1)[0]

    @property
    def line(self) -> str:
        """The explanation as `--list` prints it, with a mark on what runs only when its category is named."""
        return f"(opt-in) {self.explanation}" if self.category in optin.PACKAGES else self.explanation


class _Collector:
    def __init__(self) -> None:
        self.checks: dict[str, Check] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            check = split_nodeid(item.nodeid)[1]
            self.checks.setdefault(check, Check(check, _explain(item)))


def _explain(item: pytest.Item) -> str:
    """The first line of a check's docstring, then what its parameter says about itself."""
    function = getattr(item, "function", None)
    lines = (function.__doc__ or "").strip().splitlines() if function else []
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    about = [value.about for value in parameters.values() if getattr(value, "about", "")]
    return " ".join([lines[0] if lines else "", *(f"({text})" for text in about)]).strip()


def list_checks(suite: Path) -> list[Check]:
    """Every check of the suite in `suite`, in order of id."""
    from kvconform_conformance.runner.cli import base_arguments

    collector = _Collector()
    with contextlib.redirect_stdout(io.StringIO()):
        arguments = [*base_arguments(suite), "--collect-only", "--kvconform-everything", "--kvconform-subject=native"]
        pytest.main(arguments, plugins=[collector])
    return [collector.checks[key] for key in sorted(collector.checks)]


def print_checks(suite: Path, categories: list[str], keyword: str | None) -> int:
    """Print `id<TAB>category<TAB>explanation` lines; 3 where none is left."""
    chosen = [check for check in list_checks(suite) if not categories or check.category in categories]
    if keyword:
        chosen = [check for check in chosen if keyword in check.id or fnmatch.fnmatch(check.id, keyword)]
    for check in chosen:
        print(check.id, check.category, check.line, sep="\t")  # noqa: T201
    return 0 if chosen else 3
