"""What a run of the suite costs, beside the suite of another commit.

    python benchmarks/suite.py [REVISION] [--subject kvconform --subject native] [--runs 3] [--jobs 2] [-k EXPR]

Run it with the torch and transformers of a cell, pytest and pytest-xdist. The other commit (by default the one before
this) is checked out in a temporary worktree. The two take turns, so that a busy machine slows both, and the ratios of
turns are compared, not times. Each subject runs by itself.

Prints the median ratio of this commit's suite to the other's for each subject: seconds from start to end, and seconds
of the processors, workers and all other processes of the run included. The second hardly depends on what else the
machine does. Both suites run with the same options; where one asks more than the other, the number of checks tells.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """What one run took, in seconds, and how many checks it held."""

    wall: float
    processors: float
    checks: int


@contextlib.contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """Another commit, checked out beside this one for as long as the benchmark runs."""
    with tempfile.TemporaryDirectory(prefix="kvconform-suite-") as folder:
        place = Path(folder) / "other"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(place), revision], check=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)


def sources(place: Path) -> str:
    """The import path of a checkout; the suite moved to the top level once."""
    conformance = place / "conformance"
    return os.pathsep.join(map(str, (place / "src", conformance) if conformance.is_dir() else (place / "src",)))


def run(place: Path, subject: str, options: argparse.Namespace) -> Run:
    """Check one subject with the suite of a checkout."""
    with tempfile.TemporaryDirectory(prefix="kvconform-suite-") as folder:
        record = Path(folder) / "record.jsonl"
        command = [sys.executable, "-m", "kvconform", "check", "--subject", subject, "--device", "cpu", "--quiet"]
        command += ["--jobs", str(options.jobs), "--record", str(record)]
        command += ["-k", options.keyword] if options.keyword else []
        before, start = _processors(), time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": sources(place)}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        wall, processors = time.perf_counter() - start, _processors() - before
        if done.returncode not in {0, 1}:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode} in {place}:\n{done.stderr}")
        kinds = [json.loads(line)["kind"] for line in record.read_text("utf-8").splitlines()]
    return Run(wall, processors, kinds.count("check"))


def _processors() -> float:
    """User and system seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(subject: str, other: Path, options: argparse.Namespace) -> None:
    """Let the two suites take turns, and print their ratio."""
    pairs = [(run(ROOT, subject, options), run(other, subject, options)) for _ in range(options.runs)]
    wall = statistics.median(mine.wall / theirs.wall for mine, theirs in pairs)
    processors = statistics.median(mine.processors / theirs.processors for mine, theirs in pairs)
    mine, theirs = pairs[-1]
    print(
        f"{subject}: {wall:.2f} times the time, {processors:.2f} times the processors' time; "
        f"{mine.checks} checks, the other's {theirs.checks}; "
        f"last turn {mine.wall:.1f} s and {theirs.wall:.1f} s, processors {mine.processors:.1f} s and "
        f"{theirs.processors:.1f} s",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", nargs="?", default="HEAD~1", help="the other commit (the one before this)")
    parser.add_argument("--subject", action="append", help="may repeat (kvconform and native)")
    parser.add_argument("--runs", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--jobs", type=int, default=2, help="workers (2)")
    parser.add_argument("-k", dest="keyword", help="only these checks, as `check -k` reads it")
    options = parser.parse_args()
    # Ended from outside, the temporary worktree is removed too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with worktree(options.revision) as other:
        for subject in options.subject or ["kvconform", "native"]:
            compare(subject, other, options)


if __name__ == "__main__":
    main()
