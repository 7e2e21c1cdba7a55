"""Ends the session of a cell when the run that started it is gone, however that one ended.

A run that was killed cannot end the sessions that it started: they would go on for minutes, and the next run would find
their cells locked. So each session watches its standard input, a pipe whose other end the run holds; the system closes
that end with the process of the run. Then the session ends as after a second Ctrl-C: its record keeps what it has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

VARIABLE = "KVCONFORM_END_WITH_STDIN"
"""Set by the run for the sessions that it starts."""
GRACE = 15.0
"""Seconds a session has to end its record; then it is killed."""
WAIT = 2 * GRACE
"""Seconds that a session waits for one of an earlier run that is ending."""


def variables() -> dict[str, str]:
    """The environment of a session that shall end with this process, which has to hold the session's input open."""
    return {**os.environ, VARIABLE: "1"}


def end_with_stdin() -> bool:
    """Watch the standard input if the run that started this process asked for it.

    Returns:
        Whether it did. What this process starts is not told: its input is another.
    """
    if not os.environ.pop(VARIABLE, ""):
        return False
    threading.Thread(target=_watch, args=(sys.stdin.fileno(),), daemon=True, name="lifeline").start()
    return True


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    _signal(signal.SIGINT)
    time.sleep(GRACE)
    _signal(signal.SIGKILL)


def _signal(number: signal.Signals) -> None:
    """To this process and, where the run gave it a group of its own, to what it started: uv would go on otherwise."""
    if os.getpgrp() == os.getpid():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpid(), number)
    else:
        os.kill(os.getpid(), number)
