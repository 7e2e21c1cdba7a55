"""What runs on a machine: a task asks the run which cells it is to ask, and runs each as a user there would."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self

from matrix.cells import options as cell_options
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import locks
from matrix.collect.digest import suite_digest
from matrix.collect.disk import Keeper
from matrix.collect.fanout import CellCommand, Fanout, Stop, session_command
from matrix.collect.machines import courier
from matrix.collect.machines.channel import Channel
from matrix.collect.machines.messages import Began, Done, Hello, Lines, Message, Note
from matrix.collect.outcome import Outcome
from matrix.errors import UserError
from matrix.paths import Paths

PAUSE = 1.0
"""Seconds between two looks at what the suites wrote."""
SILENCE = 60.0
"""Seconds without a beat of the run, after which nobody waits for the answers."""
LOG = 20_000
"""Bytes of a cell's output that the run gets."""
WAIT = 120.0
"""Seconds that a task waits for another run in its folder, which may be ending."""

MakesCommand = Callable[[CellOptions, Paths], CellCommand]
"""Makes the command that runs a cell; tests bring their own."""


def facts() -> dict[str, str]:
    """What a run has to know of a machine: which sources it has, and where it writes."""
    paths = Paths.here()
    return {"digest": suite_digest(paths.root), "home": home(paths), "root": str(paths.root)}


def home(paths: Paths) -> str:
    """The folder that is written to, and on which machine."""
    return f"{socket.gethostname()}:{paths.home}"


def run_group(run: str, group: str, makes_command: MakesCommand = session_command) -> None:
    """Run what a run wants of a group of cells; this is the task that Dask is given.

    Args:
        run: the name of the run's channel.
        group: the name of the group: a torch.
        makes_command: makes the command that runs a cell.

    Raises:
        TimeoutError: the run does not answer.
        UserError: another run goes on in this folder, or the disk is full.
    """
    from distributed import get_client, get_worker

    channel = Channel(run, get_client())
    attempt = uuid.uuid4().hex
    work = channel.ask(Hello(attempt, group, f"{socket.gethostname()} ({get_worker().name})"))
    paths, cells = Paths.here(), [Cell.parse(name) for name in work.cells]
    workers = work.workers or max(1, (os.cpu_count() or 1) // work.jobs)
    options = replace(cell_options.parse(work.argv), jobs=workers)
    reporter = Reporter(channel, attempt, options, paths)
    stop = Stop()
    try:
        with locks.hold(paths.locks / "run.lock", "a matrix run", wait=WAIT), _watching(channel, stop, reporter):
            courier.receive(options.folder(paths), work.files)
            fanout = Fanout(paths, makes_command(options, paths), work.jobs, reporter, Keeper(paths, work.budget), stop)
            fanout.run(cells)
    except UserError as error:
        channel.tell(Note(attempt, error.render()))
        raise


class Reporter:
    """Tells the run what happens to each cell, and what its suite writes, as it comes."""

    def __init__(self, channel: Channel, attempt: str, options: CellOptions, paths: Paths) -> None:
        self._channel, self._attempt, self._paths = channel, attempt, paths
        self._folder = options.folder(paths)
        self._before: dict[str, dict[str, int]] = {}
        self._sent: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def started(self, cell: Cell) -> None:
        """A cell begins."""
        with self._lock:
            self._before[cell.id] = courier.stamps(self._folder, cell.id)
            self._sent[cell.id] = (0, 0)
        self._tell(Began(self._attempt, cell.id))

    def finished(self, cell: Cell, outcome: Outcome, seconds: float) -> None:
        """A cell has ended."""
        with self._lock:
            self._sent.pop(cell.id, None)
            given = courier.collect(self._folder, [cell.id], self._before.pop(cell.id, {}))
            log = self._paths.logs / f"{cell.id}.log"
            words = log.read_bytes()[-LOG:] if log.exists() else b""
            self._tell(Done(self._attempt, cell.id, seconds, json.dumps(asdict(outcome)), given, words))

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._tell(Note(self._attempt, text))

    def look(self) -> None:
        """Send what the suites wrote since the last look."""
        with self._lock:
            for cell in self._sent:
                with contextlib.suppress(FileNotFoundError):
                    self._send(cell, self._folder / f"{cell}.jsonl.part")

    def _send(self, cell: str, part: Path) -> None:
        file, sent = self._sent[cell]
        with part.open("rb") as stream:
            about = os.fstat(stream.fileno())
            if about.st_ino != file or about.st_size < sent:
                # What an earlier run had left lay there until this one began.
                sent = 0
            stream.seek(sent)
            data = stream.read()
        if data:
            self._tell(Lines(self._attempt, cell, sent, data))
            self._sent[cell] = (about.st_ino, sent + len(data))

    def _tell(self, message: Message) -> None:
        self._channel.tell(message)


@contextlib.contextmanager
def _watching(channel: Channel, stop: Stop, reporter: Reporter) -> Iterator[None]:
    """Meanwhile, send what the suites write, and stop as often as the run was asked to, or when it is gone."""
    over = threading.Event()

    def watch() -> None:
        last, since = -1, time.monotonic()
        while not over.wait(PAUSE):
            try:
                reporter.look()
                number, asked = channel.heard()
            except Exception:  # noqa: BLE001 - any error of the network means that the scheduler cannot be reached
                number, asked = last, stop.asked
            if number != last:
                last, since = number, time.monotonic()
            gone = time.monotonic() - since > SILENCE
            stop.asked = max(stop.asked, 2 if gone else asked)

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2 * PAUSE)
