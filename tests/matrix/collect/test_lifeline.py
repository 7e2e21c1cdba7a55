from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from matrix.collect import lifeline
from matrix.collect.lifeline import VARIABLE, end_with_stdin

SESSION = """
import subprocess, sys
from matrix.collect.lifeline import end_with_stdin
assert end_with_stdin()
try:
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    child.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise SystemExit(130)
"""


def session(*, group: bool) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SESSION],
        env={**lifeline.variables(), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=group,
    )


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def soon(happens: Callable[[], bool]) -> bool:
    for _ in range(100):
        if happens():
            return True
        time.sleep(0.1)
    return False


def test_a_session_and_what_it_started_end_when_its_input_is_closed() -> None:
    with session(group=True) as process:
        assert process.stdin
        assert process.stdout
        child = int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(10) == 130
        assert process.stdout.read() == "interrupted\n"
    assert soon(lambda: gone(child))


def test_one_that_shares_its_group_ends_alone() -> None:
    with session(group=False) as process:
        assert process.stdin
        assert process.stdout
        child = int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(10) == 130
    os.kill(child, signal.SIGKILL)


def test_nothing_is_watched_unless_the_run_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not end_with_stdin()
    assert lifeline.variables()[VARIABLE]
