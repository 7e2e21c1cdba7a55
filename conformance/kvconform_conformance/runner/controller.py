"""The controller's half: turns what workers report, and how they die, into the record."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from kvconform_conformance.runner.plugin import PROPERTY, split_nodeid
from kvconform_conformance.runner.recorder import Outcome, Recorder

# A worker that dies before its first check is replaced; when this many do, something is wrong with the environment
# itself.
_STILLBORN_LIMIT = 3
_SEVERITY = ("pass", "na", "skip", "fail", "error")


class Controller:
    """Hooks of the controlling process. Every planned check gets one outcome, whatever its worker does."""

    def __init__(self, recorder: Recorder, faults: Path) -> None:
        self.recorder = recorder
        self.faults = faults
        self.problems: list[str] = []
        self.interrupted = False
        self._started: dict[str, float] = {}
        self._phases: dict[str, list[tuple[str, str, float]]] = {}
        self._stillborn = 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Write the plan; every worker collects the same."""
        self.recorder.plan([split_nodeid(nodeid) for nodeid in ids])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Write that a check starts. A worker sends this before it runs the check, so it survives a crash."""
        self._started[nodeid] = time.monotonic()
        self._stillborn = 0
        self.recorder.start(*split_nodeid(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the phases of a check, or write the end of one whose worker died."""
        if report.when not in ("setup", "call", "teardown"):
            self._died(report)
            return
        properties = dict(report.user_properties)
        answer: dict[str, str] = json.loads(
            str(properties.get(PROPERTY, '{"status": "error", "message": "no outcome was sent"}'))
        )
        self._phases.setdefault(report.nodeid, []).append((answer["status"], answer["message"], report.duration))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Write the outcome of a check: the worst of its phases."""
        phases = self._phases.pop(nodeid, [])
        if phases:
            status, message, _ = max(phases, key=lambda phase: _SEVERITY.index(phase[0]))
            self.recorder.finish(Outcome(*split_nodeid(nodeid), status, sum(phase[2] for phase in phases), message))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what kept the suite from being read: checks are missing then, and that is not a pass."""
        if report.failed:
            self.problems.append(str(report.longrepr))

    def pytest_internalerror(self, excrepr: object) -> bool:
        """Keep an error of pytest itself, or why the record cannot be written, which pytest calls one of its own.

        The command tells it at the end, so pytest need not print it too.
        """
        self.problems.append(self.recorder.lost or str(excrepr))
        return True

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """End the record at once: a second Ctrl-C may come while the workers are being stopped."""
        if isinstance(excinfo.value, KeyboardInterrupt):
            self.interrupted = True
            self.recorder.end("interrupted")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Give up where workers die before they run anything, since each would be replaced for ever."""
        answered = len(self.recorder.outcomes) > len(self.recorder.asked.lines)
        if error is None or answered or self._started:
            return
        self._stillborn += 1
        if self._stillborn >= _STILLBORN_LIMIT:
            self.problems.append(f"{self._stillborn} workers died before the first check: {self._last_words(node)[1]}")
            pytest.exit("workers die before the first check", returncode=1)

    def _died(self, report: pytest.TestReport) -> None:
        status, message = self._last_words(getattr(report, "node", None))
        seconds = time.monotonic() - self._started.get(report.nodeid, time.monotonic())
        self._phases.pop(report.nodeid, None)
        self.recorder.finish(Outcome(*split_nodeid(report.nodeid), status, seconds, message))

    def _last_words(self, node: Any) -> tuple[str, str]:
        """Tell a timeout from a crash by what the worker's faulthandler wrote, and cite the innermost frames."""
        gateway = getattr(getattr(node, "gateway", None), "id", None)
        path = self.faults / f"{gateway}.txt"
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
        first = text.strip().splitlines()[0] if text.strip() else ""
        # faulthandler writes the thread that crashed first. Of a process that hangs, the main thread says where; it is
        # written last.
        stack = text.rpartition("Thread 0x")[2] if first.startswith("Timeout") else text
        frames = re.findall(r'File "(.+?)", line (\d+) in (\S+)', stack)
        place = " < ".join(f"{file}:{line} in {function}" for file, line, function in frames[:3])
        if first.startswith("Timeout"):
            return "timeout", f"still running at the limit of {first.removeprefix('Timeout ').strip('()!')}: {place}"
        if first:
            return "crash", f"{first}: {place}"
        return "crash", "the worker ended without a word (os._exit, SIGKILL, or out of memory)"
