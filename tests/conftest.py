"""What holds for every test: Ctrl-C works, and where it is asked for, only known skips are taken."""

from __future__ import annotations

import signal
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

SKIPS = Path(__file__).with_name("skips.toml")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--only-known-skips", metavar="SESSION", help="fail for a skip, or a row of tests/skips.toml, without the other"
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores Ctrl-C for what it starts in the background, and every child would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    session = config.getoption("--only-known-skips")
    # A worker of pytest-xdist sees a part of the run; the process that started it sees the whole.
    if session and not hasattr(config, "workerinput"):
        config.pluginmanager.register(KnownSkips(load(SKIPS, session)), "known-skips")


def load(path: Path, session: str) -> list[tuple[str, str]]:
    """The globs over ids and over reasons that a session's skips have to match."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["skip"]
    return [(row["test"], row["reason"]) for row in rows if session in row["sessions"]]


class KnownSkips:
    """Holds the skips of a whole run against the list."""

    def __init__(self, rows: list[tuple[str, str]]) -> None:
        self.rows = rows
        self.unused = dict.fromkeys(rows)
        self.unknown: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._take(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._take(report.nodeid, report.longrepr)

    def _take(self, test: str, longrepr: object) -> None:
        reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
        reason = reason.removeprefix("Skipped: ")
        row = next((row for row in self.rows if fnmatchcase(test, row[0]) and fnmatchcase(reason, row[1])), None)
        if row is None:
            self.unknown.append(f"{test}: skipped, and no row of {SKIPS.name} allows it: {reason}")
        else:
            self.unused.pop(row, None)

    def complaints(self) -> list[str]:
        return self.unknown + [
            f"{test}: no test was skipped for {reason!r}: remove the row" for test, reason in self.unused
        ]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self.complaints():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.complaints():
            terminalreporter.write_line(f"error: {line}", red=True)
