"""What a parallel run shows while it runs: a live board on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from matrix.cells.cell import Cell
from matrix.collect.outcome import Outcome
from matrix.errors import ExitCode

WORDS = {
    ExitCode.OK: "ok",
    ExitCode.REGRESSION: "REGRESSED",
    ExitCode.USAGE: "usage error",
    ExitCode.EMPTY: "nothing selected",
    ExitCode.UNRESOLVED: "unresolved",
    ExitCode.INTERRUPTED: "interrupted",
}


class Clock:
    """Estimates what is left from what each cell took before, or from the mean of the others."""

    def __init__(self, cells: list[Cell], before: Mapping[str, float], jobs: int) -> None:
        self._waiting = {cell.id for cell in cells}
        self._took = dict(before)
        self._jobs = jobs
        self.total = len(cells)

    @property
    def done(self) -> int:
        """How many cells have ended."""
        return self.total - len(self._waiting)

    def finish(self, cell: Cell, seconds: float) -> None:
        """A cell has ended."""
        self._waiting.discard(cell.id)
        self._took[cell.id] = seconds

    def left(self) -> str:
        """The time left in words, empty when nothing is left or nothing is known."""
        if not self._waiting or not self._took:
            return ""
        mean = sum(self._took.values()) / len(self._took)
        seconds = sum(self._took.get(name, mean) for name in self._waiting) / min(self._jobs, len(self._waiting))
        return f"about {spell(seconds)} left"


class Display(Protocol):
    """Shows a run; every method is called from the main thread."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def started(self, cell: Cell) -> None:
        """A cell begins."""

    def finished(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        """A cell has ended."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Plain:
    """One line an event, for logs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def started(self, cell: Cell) -> None:
        """A cell begins."""
        print(f"  start  {cell.id}", flush=True)

    def finished(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        """A cell has ended."""
        self._clock.finish(cell, seconds)
        print(line(self._clock, cell, outcome, seconds), flush=True)

    def note(self, text: str) -> None:
        """Something the user should know."""
        print(text, flush=True)


class Board:
    """The running cells redrawn in place, the finished ones above them."""

    def __init__(self, clock: Clock, console: Console) -> None:
        self._clock = clock
        self._console = console
        self._running: dict[Cell, float] = {}
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, value, trace)

    def started(self, cell: Cell) -> None:
        """A cell begins."""
        self._running[cell] = time.monotonic()

    def finished(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        """A cell has ended."""
        self._running.pop(cell, None)
        self._clock.finish(cell, seconds)
        style = {ExitCode.OK: "green", ExitCode.REGRESSION: "bold red"}.get(ExitCode(outcome.exit_code), "yellow")
        self._console.print(Text(line(self._clock, cell, outcome, seconds), style=style))

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._console.print(Text(text))

    def _draw(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for cell, since in self._running.items():
            table.add_row("running", cell.id, spell(time.monotonic() - since))
        return Group(table, Text(f"{self._clock.done} of {self._clock.total} cells  {self._clock.left()}", style="dim"))


def display(clock: Clock) -> Display:
    """The display that fits where the output goes."""
    if sys.stdout.isatty() and not os.environ.get("CI"):
        return Board(clock, Console(highlight=False))
    return Plain(clock)


def line(clock: Clock, cell: Cell, outcome: Outcome, seconds: float) -> str:
    """One finished cell in one line."""
    width = len(str(clock.total))
    counts = ", ".join(f"{count} {name}" for name, count in outcome.counts.items())
    result = counts or next(iter(outcome.error.splitlines()), "")
    word = WORDS[ExitCode(outcome.exit_code)]
    done = f"[{clock.done:{width}}/{clock.total}]"
    parts = (done, f"{cell.id:30}", f"{word:11}", spell(seconds), result, clock.left())
    return "  ".join(part for part in parts if part)


def spell(seconds: float) -> str:
    """A duration for people: 42 s, 3 min 5 s, 1 h 20 min."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
