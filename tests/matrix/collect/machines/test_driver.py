"""A scheduler and three workers in folders of their own, with fake sessions; one is killed in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from matrix.errors import ExitCode
from matrix.paths import ROOT, Paths
from matrix.records import files
from tests.matrix.commands.test_run import sessions, start
from tests.matrix.helpers import at

pytest.importorskip("distributed", reason="runs on many machines need requirements-machines.txt")

SMOKE, CHECKS, WORKERS = 6, 3, 3


@dataclass
class Cluster:
    """A scheduler, and workers by the folder that each writes to."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: dict[Path, subprocess.Popen[bytes]]

    def asked(self) -> Counter[str]:
        """How often each check of each cell was really asked, on all machines together."""
        logs = [home / ".cache" / "asked.log" for home in self.workers]
        return Counter(line for log in logs if log.exists() for line in log.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        told = tmp_path / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show", "--scheduler-file", str(told)]
        scheduler = process(stack, tmp_path / "scheduler", "dask_scheduler", *options)
        address = str(json.loads(soon(lambda: told.exists() and told.read_text(encoding="utf-8")))["address"])
        homes = [tmp_path / f"machine{number}" for number in range(WORKERS)]
        options = [address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        workers = {home: process(stack, home, "dask_worker", *options, "--name", home.name) for home in homes}
        yield Cluster(address.replace("tcp://", "dask://"), scheduler, workers)


def process(stack: contextlib.ExitStack, home: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    """A process of Dask in a folder of its own, which writes there."""
    home.mkdir()
    log = stack.enter_context((home / "log").open("wb"))
    variables = {
        **os.environ,
        "KVCONFORM_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        # Measuring the machine's own cache would take a second a torch minor.
        "UV_CACHE_DIR": str(home / "uv"),
    }
    line = [sys.executable, "-m", f"distributed.cli.{name}", *options]
    begun = subprocess.Popen(line, cwd=home, env=variables, stdout=log, stderr=log)
    stack.callback(end, begun)
    return begun


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)


def soon(happens: object, seconds: float = 60) -> str:
    """What something gives as soon as it gives anything."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = happens()  # type: ignore[operator]
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError


def results(paths: Paths) -> dict[str, list[tuple[str, str, str]]]:
    """The answers of each whole record; nothing else lies there."""
    found = {path.name: files.read(path) for path in paths.records.iterdir()}
    assert all(run.complete for run in found.values())
    return {name: [(each.subject, each.id, each.status) for each in run.records] for name, run in found.items()}


def test_a_lost_machine_costs_the_cell_that_it_was_in_and_changes_no_result(tmp_path: Path, cluster: Cluster) -> None:
    alone, paths = at(tmp_path / "alone"), at(tmp_path / "home")
    run = start(paths, "carry,2.8=carry-hang-once,2.9=regress", "--on", cluster.address)
    hung = "torch2.8-tf4.55-py3.11-cpu.jsonl.part"
    # It answered one check, which has come here, and hangs in the next.
    soon(lambda: (part := paths.records / hung).exists() and "round-trip/two" in part.read_text(encoding="utf-8"))
    lost = next(home for home in cluster.workers if (home / ".cache" / "records" / hung).exists())
    cluster.workers[lost].kill()
    out, err = run.communicate(timeout=120)
    assert run.returncode == ExitCode.REGRESSION, out + err
    assert "6 cells: 5 ok, 1 REGRESSED" in out, out + err
    assert f"({lost.name}) is lost; torch2.8-tf4.55-py3.11-cpu is asked again elsewhere" in out
    # Without it: one machine, the same modes but for what hangs.
    beside = start(alone, "carry,2.9=regress")
    out, err = beside.communicate(timeout=120)
    assert beside.returncode == ExitCode.REGRESSION, out + err
    assert results(paths) == results(alone)
    # Nothing was asked twice, not even of the cell that was lost, and its session ended with the machine.
    assert cluster.asked() == dict.fromkeys(cluster.asked(), 1)
    assert len(cluster.asked()) == SMOKE * CHECKS
    soon(lambda: not sessions(Paths(home=lost)))
    assert (paths.logs / "torch2.8-tf4.55-py3.11-cpu.log").read_text(encoding="utf-8")


def test_ctrl_c_ends_cells_elsewhere_and_the_same_command_goes_on(tmp_path: Path, cluster: Cluster) -> None:
    paths = at(tmp_path / "home")
    options = ("--on", cluster.address, "--torch", "2.5..2.6", "--transformers", "4.53")
    run = start(paths, "carry-hang-once", *options)
    soon(lambda: len(list(paths.records.glob("*.part"))) == 2 and len(cluster.asked()) == 2)
    run.send_signal(signal.SIGINT)
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == ExitCode.INTERRUPTED, out + err
    assert "Ctrl-C again ends them now" in out
    assert "Traceback" not in out + err
    assert [files.read(path).complete for path in paths.records.iterdir()] == [False, False]
    run = start(paths, "carry-hang-once", *options)
    out, err = run.communicate(timeout=60)
    assert run.returncode == ExitCode.OK, out + err
    assert len(results(paths)) == 2
    assert cluster.asked() == dict.fromkeys(cluster.asked(), 1)
    # Nothing is left to do, so no machine is asked.
    run = start(paths, "carry", *options[:1], "dask://127.0.0.1:1", *options[2:])
    out, err = run.communicate(timeout=60)
    assert run.returncode == ExitCode.OK, out + err


def test_a_scheduler_that_is_lost_ends_the_run_and_loses_no_record(tmp_path: Path, cluster: Cluster) -> None:
    paths = at(tmp_path / "home")
    run = start(paths, "carry,2.8=carry-hang-once", "--on", cluster.address)
    soon(lambda: len(list(paths.records.glob("*.jsonl"))) == SMOKE - 1)
    cluster.scheduler.kill()
    out, err = run.communicate(timeout=120)
    assert run.returncode == ExitCode.INTERRUPTED, out + err
    assert err.count("error:") == 1
    assert "the scheduler is gone" in err
    assert "Traceback" not in out + err
    assert len([path for path in paths.records.glob("*.jsonl") if files.read(path).complete]) == SMOKE - 1


def test_the_scheduler_is_not_there(tmp_path: Path) -> None:
    run = start(at(tmp_path / "home"), "pass", "--on", "dask://127.0.0.1:1")
    out, err = run.communicate(timeout=120)
    assert run.returncode == ExitCode.UNRESOLVED
    assert err.count("error:") == 1
    assert "no scheduler answers at dask://127.0.0.1:1" in err
    assert "Traceback" not in out + err


SSH_SERVER = """
import asyncio, asyncssh, os, signal, subprocess, sys
folder, key = sys.argv[1:]

class Anyone(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False

async def handle(asked):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    begun = subprocess.Popen(asked.command, shell=True, cwd=folder, start_new_session=True, **pipes)
    await asked.redirect(stdin=begun.stdin, stdout=begun.stdout, stderr=begun.stderr)
    try:
        while begun.poll() is None and not asked.is_closing():
            await asyncio.sleep(0.1)
    finally:
        if begun.poll() is None:
            os.killpg(begun.pid, signal.SIGTERM)
    asked.exit(begun.wait())

async def main():
    server = await asyncssh.create_server(Anyone, "127.0.0.1", 0, server_host_keys=[key], process_factory=handle)
    print(server.get_port(), flush=True)
    await server.wait_closed()

asyncio.run(main())
"""


def ssh_server(stack: contextlib.ExitStack, home: Path, key: Path) -> int:
    """A machine that anyone may log in to, which writes into a folder of its own; gives its port."""
    home.mkdir()
    variables = {**os.environ, "KVCONFORM_HOME": str(home), "UV_CACHE_DIR": str(home / "uv")}
    line = [sys.executable, "-c", SSH_SERVER, str(home), str(key)]
    begun = subprocess.Popen(line, env=variables, stdout=subprocess.PIPE, text=True)
    stack.callback(end, begun)
    assert begun.stdout
    stack.callback(begun.stdout.close)
    return int(begun.stdout.readline())


def test_hosts_are_reached_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncssh = pytest.importorskip("asyncssh")
    key, told = tmp_path / "key", tmp_path / ".ssh"
    made = asyncssh.generate_private_key("ssh-ed25519")
    made.write_private_key(key)
    told.mkdir(mode=0o700)
    homes = {name: tmp_path / f"host-{name}" for name in ("localhost", "127.0.0.1")}
    with contextlib.ExitStack() as stack:
        ports = {name: ssh_server(stack, home, key) for name, home in homes.items()}
        (told / "config").write_text("".join(f"Host {name}\n  Port {port}\n" for name, port in ports.items()))
        keys = made.export_public_key().decode().strip()
        (told / "known_hosts").write_text("".join(f"[{name}]:{port} {keys}\n" for name, port in ports.items()))
        monkeypatch.setenv("HOME", str(tmp_path))
        run = start(at(tmp_path / "home"), "carry", "--hosts", ",".join(homes))
        out, err = run.communicate(timeout=120)
        assert run.returncode == ExitCode.OK, out + err
        assert "6 cells: 6 ok" in out
        logs = [home / ".cache" / "asked.log" for home in homes.values()]
        counts = [len(log.read_text(encoding="utf-8").splitlines()) for log in logs]
        assert sum(counts) == SMOKE * CHECKS
        assert all(counts)
