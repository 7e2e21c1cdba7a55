"""A suite whose parent is killed ends with it, and ends its record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("xdist", reason="the suite runs in workers of pytest-xdist")
pytest.importorskip("transformers", reason="the suite is about transformers")

PLANTED = Path(__file__).parent / "planted"
PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
print(child.pid, flush=True)
child.wait()
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descendants(process: int) -> set[int]:
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            continue
        if parent == process:
            child = int(path.parent.name)
            found |= {child} | descendants(child)
    return found


def wait_for(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads processes from /proc")
def test_a_suite_whose_parent_is_killed_ends_and_ends_its_record(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    check = [sys.executable, "-m", "kvconform", "check", "--suite", str(PLANTED), "--device", "cpu", "--quiet"]
    check += ["--subject", "native", "-k", "planted/hang", "--record", str(record), "--end-with-stdin"]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *check], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    suite = int(parent.stdout.readline())
    assert wait_for(lambda: record.exists() and '"started"' in record.read_text("utf-8"), 120)
    below = descendants(suite)
    assert below
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: not any(alive(each) for each in {suite, *below}), 15)
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    assert (lines[-1]["kind"], lines[-1]["outcome"]) == ("end", "interrupted")
