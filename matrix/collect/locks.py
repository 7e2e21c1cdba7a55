"""Locks that end with their process: the kernel holds them, and the file holds the process id for the message."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from matrix.errors import UserError

PAUSE = 0.2
"""Seconds between two tries."""


@contextlib.contextmanager
def hold(path: Path, what: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: the lock file.
        what: what only one process may do, for the message.
        wait: seconds to wait for a process that holds it.

    Raises:
        UserError: another process holds it; the message names the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not _locked(file, wait):
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise UserError(f"{what} is already running, as process {owner}", f"ps -p {owner}")
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(file: TextIO, wait: float) -> bool:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(PAUSE)
        else:
            return True
