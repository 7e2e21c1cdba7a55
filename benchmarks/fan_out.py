"""What a second job saves: the smoke tier with two cells at once, beside one at a time.

    python benchmarks/fan_out.py [--tier smoke] [--category registration --category round-trip] [--wide]

Prints the ratio of the two, measured in this run on warm environments with one worker process in each cell, and with
--wide also one cell at a time with a worker a core. Target: at most 0.62 on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = 0.62


def run(found: argparse.Namespace, home: Path, jobs: int, workers: int) -> float:
    """The seconds of one run of the tier."""
    command = [sys.executable, "-m", "matrix", "run", "--tier", found.tier, "--rerun", "--disk-budget", "1000"]
    command += [f"--jobs={jobs}", f"--workers={workers}", *(f"--category={name}" for name in found.category)]
    start = time.monotonic()
    environment = {**os.environ, "KVCONFORM_HOME": str(home), "CI": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    if done.returncode not in {0, 1}:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    print(f"  {jobs} at once, {workers} workers each: {seconds:.1f} s", flush=True)
    return seconds


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="smoke")
    parser.add_argument("--category", action="append", default=[])
    parser.add_argument("--wide", action="store_true", help="measure one cell at a time with a worker a core too")
    found = parser.parse_args()
    cores = os.cpu_count() or 1
    (ROOT / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kvconform-", dir=ROOT / ".cache") as folder:
        home = Path(folder)
        print("making the environments", flush=True)
        run(argparse.Namespace(tier=found.tier, category=["archive"]), home, 2, 1)
        one, two = run(found, home, 1, 1), run(found, home, 2, 1)
        wide = run(found, home, 1, cores) if found.wide else None
    print(f"ratio of two jobs to one, one worker each: {two / one:.2f} (target: at most {TARGET})")
    if wide is not None:
        print(f"ratio of two jobs of one worker to one job of {cores}: {two / wide:.2f}")


if __name__ == "__main__":
    main()
