"""Ends this process when the one that started it is gone, however that one ended.

A process that was killed cannot end the ones that it started. So these watch a pipe whose other end it holds: the
system closes that end with its process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

GRACE = 5.0
"""Seconds to end the record; then the process ends without it."""


def end_with_stdin() -> None:
    """Watch the standard input, and end as after Ctrl-C when it is closed."""
    threading.Thread(target=_watch, args=(sys.stdin.fileno(),), daemon=True, name="lifeline").start()


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(130)
