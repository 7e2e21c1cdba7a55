"""What a warm cell costs outside pytest, beside the same suite run by a plain noxfile with virtualenv and pip.

    python benchmarks/cell_overhead.py [--torch 2.5] [--transformers 4.53] [--keyword registered]

Prints the seconds of each outside pytest (making the environment, starting, judging) and their ratio, all measured in
this run. Targets: 3 seconds, and a ratio of 1/5. Both have run once before, so that each cache is warm. pytest's own
time is taken from the record, which gets its first line before pytest starts and its last one after it ended; a few
checks are enough, since only what is outside counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET_SECONDS, TARGET_RATIO = 3.0, 0.2

PLAIN = """
import nox

@nox.session(venv_backend="virtualenv")
def conformance(session):
    session.install("torch=={torch}.*", "transformers=={transformers}.*", "-e", {root!r} + "[check]")
    session.run("python", "-m", "kvconform", "check", "--record", {record!r}, {options}, success_codes=[0, 1])
"""


@dataclass(frozen=True)
class Timing:
    """Seconds of a run, and of the pytest in it."""

    wall: float
    pytest: float

    @property
    def outside(self) -> float:
        """Seconds that are not pytest's."""
        return self.wall - self.pytest


class Watch(threading.Thread):
    """Notes when a record gets its first and its last line."""

    def __init__(self, records: Callable[[], Sequence[Path]]) -> None:
        super().__init__(daemon=True)
        self.records = records
        self.began = self.ended = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        """Look a hundred times a second."""
        while not self.done.wait(0.01):
            for path in self.records():
                try:
                    text = path.read_text(encoding="utf-8")
                except OSError:
                    continue
                if text and not self.began:
                    self.began = time.monotonic()
                if '"kind": "end"' in text or '"kind":"end"' in text:
                    self.ended = time.monotonic()
                    return


def timed(command: Sequence[str], records: Callable[[], Sequence[Path]], home: Path) -> Timing:
    """Run a command and split its time."""
    watch = Watch(records)
    watch.start()
    start = time.monotonic()
    environment = {**os.environ, "KVCONFORM_HOME": str(home)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    wall = time.monotonic() - start
    watch.done.set()
    watch.join()
    if done.returncode not in {0, 1} or not watch.began or not watch.ended:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return Timing(wall, watch.ended - watch.began)


def ours(found: argparse.Namespace, home: Path) -> Timing:
    """The nox session of this repository."""
    for path in home.rglob("*.jsonl*"):
        path.unlink()
    session = f"conformance(torch={found.torch!r}, transformers={found.transformers!r})"
    command = [sys.executable, "-m", "nox", "-s", session, "--", f"-k{found.keyword}"]
    return timed(command, lambda: list((home / ".cache" / "partial").glob("*.jsonl*")), home)


def plain(found: argparse.Namespace, home: Path) -> Timing:
    """A noxfile as one writes it first."""
    record = home / "plain.jsonl"
    record.unlink(missing_ok=True)
    options = ", ".join(repr(text) for text in ("-k", found.keyword))
    text = PLAIN.format(
        torch=found.torch, transformers=found.transformers, root=str(ROOT), record=str(record), options=options
    )
    (home / "noxfile.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "nox", "--noxfile", str(home / "noxfile.py"), "-s", "conformance"]
    return timed(command, lambda: [record], home)


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default="2.5")
    parser.add_argument("--transformers", default="4.53")
    parser.add_argument("--keyword", default="registered", help="the checks that run, as pytest reads it")
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours; the median counts")
    found = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvconform-", dir=ROOT / ".cache") as folder:
        home = Path(folder)
        ours(found, home)
        runs = sorted((ours(found, home) for _ in range(found.repeat)), key=lambda timing: timing.outside)
        warm = runs[len(runs) // 2]
        plain(found, home)
        other = plain(found, home)
    ratio = warm.outside / other.outside
    print(f"warm cell: {warm.outside:.2f} s outside pytest, {warm.pytest:.1f} s in it (target: {TARGET_SECONDS:g} s)")
    print(f"plain nox with virtualenv and pip: {other.outside:.1f} s outside pytest, {other.pytest:.1f} s in it")
    print(f"ratio outside pytest: {ratio:.3f} (target: at most {TARGET_RATIO:g})")


if __name__ == "__main__":
    (ROOT / ".cache").mkdir(exist_ok=True)
    main()
