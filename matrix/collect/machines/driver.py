"""A run on the machines of a Dask scheduler: gives out a task a torch minor, takes records in, judges them here.

Dask decides which machine gets which task, and gives the task of a lost machine to another one. A task asks for its
work when it begins, so the second one is told what is left: the cell that was lost is asked again, with the answers
that its suite had given by then.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix.cells.cell import Cell
from matrix.collect.fanout import GRACE, Stop
from matrix.collect.machines import courier
from matrix.collect.machines.channel import Channel
from matrix.collect.machines.messages import Began, Done, Hello, Lines, Message, Note, Work
from matrix.collect.machines.worker import run_group
from matrix.collect.outcome import Outcome
from matrix.collect.progress import Display
from matrix.collect.session import prepare
from matrix.errors import ExitCode, UserError
from matrix.paths import Paths

PAUSE = 0.3
"""Seconds between two looks at what the machines told."""
BEAT = 5.0
"""Seconds between two signs of life; a machine that hears none for a minute stops."""
LOSSES = 3
"""How often a machine may be lost in a cell before the cell is given up."""

Judge = Callable[[Path, Outcome], None]
"""Puts the verdict over a record into an outcome."""


@dataclass(frozen=True)
class Asked:
    """What every task is told: the options of the session, cells at once, processes in a cell, bytes of disk."""

    argv: Sequence[str]
    jobs: int
    workers: int | None
    budget: int


@dataclass
class Group:
    """The cells of one torch, and what became of them."""

    name: str
    left: list[Cell]
    attempt: str = ""
    machine: str = ""
    running: dict[str, float] = field(default_factory=dict)
    future: Any = None


@dataclass
class Machines:
    """A run on many machines.

    Args:
        client: a client of Dask.
        paths: where things lie here.
        folder: where the records go.
        asked: what is asked of each machine.
        judge: puts a verdict into an outcome.
        display: shows what happens.
        resources: what a task needs of a machine, by name; machines say what they have.
        task: runs a group; tests bring their own.
    """

    client: Any
    paths: Paths
    folder: Path
    asked: Asked
    judge: Judge
    display: Display
    resources: Mapping[str, float] = field(default_factory=dict)
    task: Callable[[str, str], None] = run_group
    stop: Stop = field(default_factory=Stop)
    _groups: dict[str, Group] = field(default_factory=dict)
    _outcomes: list[Outcome] = field(default_factory=list)
    _losses: Counter[str] = field(default_factory=Counter)
    _seen: int = 0
    _until: float | None = None
    _beaten: float = 0.0

    def run(self, cells: Sequence[Cell]) -> list[Outcome]:
        """Run the cells and return how each ended; those that never started are not among them.

        Raises:
            UserError: the scheduler is gone; what was recorded stays.
        """
        name = f"kvconform-{uuid.uuid4().hex[:12]}"
        for cell in sorted(cells, key=lambda cell: cell.order):
            self._groups.setdefault(cell.torch, Group(cell.torch, [])).left.append(cell)
        try:
            channel = Channel(name, self.client)
            channel.beat(0)
            for group in self._groups.values():
                self._submit(name, group)
            self._serve(name, channel)
            channel.close()
        except (OSError, TimeoutError) as error:
            message = f"the scheduler is gone ({error or type(error).__name__}); what was recorded is kept"
            raise UserError(message, "run it again: it goes on where it stopped", ExitCode.INTERRUPTED) from None
        return self._outcomes

    def _serve(self, name: str, channel: Channel) -> None:
        while self._groups and not (self._until and time.monotonic() > self._until):
            ended = [group for group in self._groups.values() if group.future.done()]
            for message in channel.messages():
                self._take(message, channel)
            for group in ended:
                self._end(name, group)
            self._heed(channel)
            time.sleep(PAUSE)

    def _submit(self, name: str, group: Group) -> None:
        group.future = self.client.submit(
            self.task,
            name,
            group.name,
            key=f"torch{group.name}-{uuid.uuid4().hex[:8]}",
            pure=False,
            # The longest first: the last one to begin decides when the run ends.
            priority=len(group.left),
            resources=dict(self.resources) or None,
        )

    def _take(self, message: Message, channel: Channel) -> None:
        if isinstance(message, Hello):
            self._welcome(message, channel)
            return
        group = next((each for each in self._groups.values() if each.attempt == message.attempt), None)
        if group is None:
            return  # of a machine that was lost, or that Dask took for lost
        if isinstance(message, Began):
            group.running[message.cell] = time.monotonic()
            prepare(self._part(message.cell))
            self.display.started(Cell.parse(message.cell))
        elif isinstance(message, Lines):
            with self._part(message.cell).open("ab" if message.at else "wb") as stream:
                stream.write(message.data)
        elif isinstance(message, Done):
            self._finish(group, message)
        elif isinstance(message, Note):
            self.display.note(f"{group.machine}: {message.text}")

    def _welcome(self, hello: Hello, channel: Channel) -> None:
        group = self._groups.get(hello.group)
        cells: list[Cell] = []
        if group:
            self._count_losses(group)
            group.attempt, group.machine = hello.attempt, hello.machine
            cells = [] if self.stop.asked else list(group.left)
        names = [cell.id for cell in cells]
        files = courier.collect(self.folder, names)
        asked = self.asked
        channel.answer(hello.attempt, Work(names, list(asked.argv), asked.jobs, asked.workers, asked.budget, files))

    def _count_losses(self, group: Group) -> None:
        """A group that begins again was on a machine that is lost: only the cells that ran there are touched."""
        for name in group.running:
            self._losses[name] += 1
            prepare(self._part(name))
            if self._losses[name] < LOSSES:
                self.display.note(f"{group.machine} is lost; {name} is asked again elsewhere")
                continue
            cell = Cell.parse(name)
            outcome = Outcome(name, ExitCode.REGRESSION, f"{LOSSES} machines were lost while they asked it")
            self._close(group, cell, outcome, 0.0)
        group.running.clear()

    def _finish(self, group: Group, done: Done) -> None:
        group.running.pop(done.cell, None)
        cell = Cell.parse(done.cell)
        outcome = Outcome(**json.loads(done.outcome))
        record = courier.deliver(self.folder / f"{cell.id}.jsonl", done.files)
        self.paths.logs.mkdir(parents=True, exist_ok=True)
        (self.paths.logs / f"{cell.id}.log").write_bytes(done.log)
        if record is not None:
            self.judge(record, outcome)
        outcome.save(self.paths)
        self._close(group, cell, outcome, done.seconds)

    def _close(self, group: Group, cell: Cell, outcome: Outcome, seconds: float) -> None:
        group.left = [each for each in group.left if each != cell]
        self._outcomes.append(outcome)
        self.display.finished(cell, outcome, seconds)

    def _end(self, name: str, group: Group) -> None:
        """A task has ended. One that Dask gave up, since its machines were lost too often, is given out again."""
        if group.future.status == "error" and type(group.future.exception()).__name__ == "KilledWorker":
            self._count_losses(group)
            if group.left and not self.stop.asked:
                self._submit(name, group)
                return
        elif group.future.status == "error":
            error = group.future.exception()
            self.display.note(f"{group.machine or 'a machine'}: torch {group.name} stopped: {error}")
        del self._groups[group.name]

    def _heed(self, channel: Channel) -> None:
        """Pass on what the user asked for, and say that the run is there."""
        if self.stop.asked > self._seen:
            self._seen, self._beaten = self.stop.asked, 0.0
            count = sum(len(group.running) for group in self._groups.values())
            if self._seen == 1:
                self.display.note(f"stopping: {count} running cells finish first; Ctrl-C again ends them now")
                waiting = [group for group in self._groups.values() if not group.attempt]
                self.client.cancel([group.future for group in waiting])
                for group in waiting:
                    del self._groups[group.name]
            else:
                self.display.note(f"ending {count} running cells; their records keep what they have")
                self._until = self._until or time.monotonic() + 2 * GRACE
        if time.monotonic() - self._beaten > BEAT:
            self._beaten = time.monotonic()
            channel.beat(self.stop.asked)

    def _part(self, cell: str) -> Path:
        return self.folder / f"{cell}.jsonl.part"
