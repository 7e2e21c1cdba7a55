"""What three Dask workers on this machine take for the smoke tier, beside `--jobs 2` without Dask.

    python benchmarks/machines.py [--workers 3] [--category registration] [--fake SECONDS]

Prints the ratio of the two, measured in turns in this run on warm environments, with one process in each cell. With
--fake each cell is a session around a suite that waits so long, which shows what giving out work costs, and nothing
about cells. Targets: 1.1 here; on a machine with a core for each worker, 0.6 of one worker (--alone measures it).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = 1.1


def run(command: list[str], home: Path) -> float:
    """The seconds of one run of the tier."""
    start = time.monotonic()
    environment = {**os.environ, "KVCONFORM_HOME": str(home), "CI": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return time.monotonic() - start


@contextlib.contextmanager
def workers(folder: Path, count: int) -> Iterator[str]:
    """A scheduler, and workers with folders of their own; gives the scheduler's address."""
    told = folder / "scheduler.json"
    scheduler = [
        "dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        str(told),
    ]
    begun = [begin(folder, scheduler)]
    try:
        while not told.exists():
            time.sleep(0.1)
        address = json.loads(told.read_text(encoding="utf-8"))["address"]
        for number in range(count):
            options = [address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
            begun.append(begin(folder / f"machine{number}", ["dask_worker", *options]))
        yield address.replace("tcp://", "dask://")
    finally:
        for process in begun:
            process.terminate()
        for process in begun:
            process.wait(20)


def begin(home: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """A process of Dask that writes into a folder."""
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "KVCONFORM_HOME": str(home), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", f"distributed.cli.{arguments[0]}", *arguments[1:]]
    with (home / "dask.log").open("wb") as log:
        return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=log, stderr=log)


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--category", action="append", default=[])
    parser.add_argument("--fake", type=float, metavar="SECONDS", help="fake cells that wait so long")
    parser.add_argument("--alone", action="store_true", help="one worker too")
    parser.add_argument("--repeat", type=int, default=2)
    found = parser.parse_args()
    (ROOT / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kvconform-", dir=ROOT / ".cache") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        many = stack.enter_context(workers(folder / "many", found.workers))
        one = stack.enter_context(workers(folder / "one", 1)) if found.alone else ""
        ways = {"--jobs 2": ["--jobs", "2"], f"{found.workers} workers": ["--on", many]}
        ways |= {"one worker": ["--on", one]} if one else {}
        homes = {way: folder / f"home{at}" for at, way in enumerate(ways)}
        if not found.fake:
            print("making the environments", flush=True)
            for way, options in ways.items():
                run(command(found, homes[way], options), homes[way])
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(found.repeat):
            for way, options in ways.items():
                taken[way].append(timed(found, homes[way], options, way))
    what = f"fake cells of {found.fake} s" if found.fake else "real cells"
    jobs, machines, *rest = (min(each) for each in taken.values())
    print(
        f"ratio of {found.workers} workers to --jobs 2, {what}: {machines / jobs:.2f} (target: at most {TARGET} here)"
    )
    if rest:
        print(f"ratio of {found.workers} workers to one worker, {what}: {machines / rest[0]:.2f}")


def timed(found: argparse.Namespace, home: Path, options: list[str], way: str) -> float:
    """The seconds of one run, printed."""
    seconds = run(command(found, home, options), home)
    print(f"  {way}: {seconds:.1f} s", flush=True)
    return seconds


def command(found: argparse.Namespace, home: Path, options: list[str]) -> list[str]:
    """The line that runs the tier."""
    common = ["--rerun", "--workers", "1", "--disk-budget", "1000", *(f"--category={name}" for name in found.category)]
    if found.fake is None:
        return [sys.executable, "-m", "matrix", "run", *common, *options]
    script = str(ROOT / "tests" / "matrix" / "drive_run.py")
    return [sys.executable, script, str(home), f"wait-{found.fake}", "--rerun", *options]


if __name__ == "__main__":
    main()
