"""Many cells at once, each in a nox session of its own, ordered by torch; a stopped run leaves whole records."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import lifeline
from matrix.collect.disk import Keeper, is_full
from matrix.collect.outcome import Outcome
from matrix.collect.progress import Display
from matrix.errors import ExitCode, UserError
from matrix.paths import Paths
from matrix.records.writing import FULL

GRACE = 15.0
"""Seconds a cell has to end its record when it is stopped."""

CellCommand = Callable[[Cell], Sequence[str]]


@dataclass
class Stop:
    """How often the user asked to stop: once lets the running cells finish, twice ends them, thrice kills them."""

    asked: int = 0

    def ask(self, *_: object) -> None:
        """The signal handler."""
        self.asked += 1


@dataclass
class Fanout:
    """A run of many cells.

    Args:
        paths: where things lie.
        command: makes the command that runs a cell.
        jobs: how many cells run at once.
        keeper: bounds the disk, or None.
        display: shows what happens.
    """

    paths: Paths
    command: CellCommand
    jobs: int
    display: Display
    keeper: Keeper | None = None
    stop: Stop = field(default_factory=Stop)
    _processes: dict[Cell, subprocess.Popen[bytes]] = field(default_factory=dict)
    _seen: int = 0
    _killed_at: float | None = None
    _disk_is_full: bool = False

    def run(self, cells: Sequence[Cell]) -> list[Outcome]:
        """Run the cells and return how each ended; those that never started are not among them.

        Raises:
            UserError: the disk is full; what was recorded stays.
        """
        waiting = sorted(cells, key=lambda cell: cell.order)
        running: dict[Future[int], tuple[Cell, float]] = {}
        outcomes: list[Outcome] = []
        with ThreadPoolExecutor(self.jobs) as pool:
            while running or (waiting and not self._stops):
                while waiting and len(running) < self.jobs and not self._stops:
                    cell = waiting.pop(0)
                    self._make_room(cell, {other.torch for other, _ in running.values()})
                    self.display.started(cell)
                    running[pool.submit(self._run_one, cell)] = (cell, time.monotonic())
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                self._heed()
                for future in done:
                    cell, since = running.pop(future)
                    outcomes.append(self._finish(cell, future.result(), time.monotonic() - since))
        if self._disk_is_full:
            message = f"the disk is full; what {len(outcomes)} cells recorded is kept, the rest did not run"
            raise UserError(message, "uv cache prune && df -h .", ExitCode.UNRESOLVED)
        return outcomes

    @property
    def _stops(self) -> bool:
        return bool(self.stop.asked) or self._disk_is_full

    def _run_one(self, cell: Cell) -> int:
        try:
            return self._run_logged(cell)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._disk_is_full = True
            return int(ExitCode.UNRESOLVED)

    def _run_logged(self, cell: Cell) -> int:
        log = self.paths.logs / f"{cell.id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        (self.paths.outcomes / f"{cell.id}.json").unlink(missing_ok=True)
        with log.open("wb") as output:
            # A session of its own: the terminal's Ctrl-C reaches this process alone, which decides what it means.
            process = subprocess.Popen(
                list(self.command(cell)),
                cwd=self.paths.root,
                env=lifeline.variables(),
                # Held open, never written to: when this process is gone the session notices, and ends.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._processes[cell] = process
            try:
                return process.wait()
            finally:
                self._processes.pop(cell, None)
                if process.stdin:
                    process.stdin.close()

    def _finish(self, cell: Cell, code: int, seconds: float) -> Outcome:
        outcome = Outcome.load(self.paths, cell) or Outcome(cell.id)
        known = {int(each) for each in ExitCode}
        outcome.exit_code = code if code in known else ExitCode.REGRESSION
        if self._seen > 1 and code:
            outcome.exit_code, outcome.error = ExitCode.INTERRUPTED, "stopped"
        elif code and is_full(self.paths.home):
            self._disk_is_full = True
        elif code not in known:
            outcome.error = f"the session died with code {code}"
        self.display.finished(cell, outcome, seconds)
        if outcome.exit_code not in {ExitCode.OK, ExitCode.INTERRUPTED}:
            self.display.note(self._explain(cell, outcome))
        return outcome

    def _explain(self, cell: Cell, outcome: Outcome) -> str:
        reason = [f"         {text}" for text in outcome.error.splitlines()]
        log = self.paths.logs / f"{cell.id}.log"
        shown = log.relative_to(self.paths.home) if log.is_relative_to(self.paths.home) else log
        return "\n".join([*reason, f"         see {shown}"])

    def _heed(self) -> None:
        """Act on what the user asked for since the last call."""
        if self.stop.asked > self._seen:
            self._seen = self.stop.asked
            count = len(self._processes)
            if self._seen == 1:
                self.display.note(f"stopping: {count} running cells finish first; Ctrl-C again ends them now")
            else:
                self.display.note(f"ending {count} running cells; their records keep what they have")
                self._signal(signal.SIGINT if self._seen == 2 else signal.SIGKILL)  # noqa: PLR2004 - the second time
                self._killed_at = self._killed_at or time.monotonic() + GRACE
        if self._killed_at and time.monotonic() > self._killed_at:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for process in list(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def _make_room(self, cell: Cell, running: Collection[str]) -> None:
        freed = self.keeper.room_for(cell.torch, running) if self.keeper else ""
        if freed:
            self.display.note(freed)


@contextlib.contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Count Ctrl-C instead of raising; SIGTERM, which a scheduler sends, ends the cells at once."""

    def terminate(*_: object) -> None:
        stop.asked = max(2, stop.asked + 1)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, stop.ask)
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def session_command(options: CellOptions, paths: Paths) -> CellCommand:
    """Makes the command that runs a cell: the same nox session that a user starts."""

    def command(cell: Cell) -> list[str]:
        base = [sys.executable, "-m", "nox", "--no-color" if not sys.stdout.isatty() else "--force-color"]
        noxfile = str(paths.root / "noxfile.py")
        return [*base, "--noxfile", noxfile, "--session", cell.session, "--", *options.to_argv(), *cell.to_argv()]

    return command


def expect_disk(folder: Path) -> None:
    """Refuse to begin on a full disk.

    Raises:
        UserError: less than a gigabyte is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stat = os.statvfs(folder)
    if stat.f_bavail * stat.f_frsize < 10**9:
        raise UserError("less than 1 GB is free: no environment fits", "uv cache prune && df -h .", ExitCode.UNRESOLVED)
