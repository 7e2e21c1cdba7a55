"""Finding machines: a scheduler of Dask that runs somewhere, or one that is started here for hosts reached by SSH."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix.collect.digest import suite_digest
from matrix.collect.disk import GB, MINOR_COST
from matrix.collect.machines.worker import facts, home
from matrix.errors import ExitCode, UserError
from matrix.paths import Paths

INSTALL = "python -m pip install -r requirements-machines.txt"
LOOPBACK = "127.0.0.1"
FIRST = 60.0
"""Seconds to wait for the first machine."""
ANSWER = 10
"""Seconds that a scheduler has to answer."""
START = "python -m distributed.cli.dask_worker {address} --nthreads 1, in a checkout on each machine"


@dataclass(frozen=True)
class Hosts:
    """Machines reached by SSH.

    Attributes:
        names: their names.
        root: the folder of the checkout on each of them.
        python: the Python with the requirements on each of them.
        scheduler: the address of this machine on which the scheduler listens.
    """

    names: Sequence[str]
    root: Path
    python: str = sys.executable
    scheduler: str = LOOPBACK


@contextlib.contextmanager
def client(on: str | None, hosts: Hosts | None, paths: Paths, *, device: str) -> Iterator[Any]:
    """A client of Dask, while the block runs, of a scheduler with machines that can run cells of this checkout.

    Args:
        on: `dask://HOST:PORT` of a scheduler that runs, or None.
        hosts: machines to begin a scheduler for, or None.
        paths: where the run writes.
        device: the device of the cells.

    Raises:
        UserError: a package is missing, the scheduler does not answer, or a machine cannot run these cells.
    """
    distributed = _import("distributed")
    with contextlib.ExitStack() as stack:
        address: Any = hosts and stack.enter_context(_cluster(hosts, device))
        shown = f"dask://{LOOPBACK}" if on is None else on
        try:
            made = distributed.Client(address or _tcp(shown), timeout=ANSWER, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise _unreachable(f"no scheduler answers at {shown}: {error}") from None
        stack.enter_context(made)
        expect_machines(made, paths)
        yield made


def needs(client: Any, device: str) -> dict[str, float]:
    """What a task needs of a machine: a GPU for cells of CUDA, and room for a torch minor where machines tell theirs.

    Raises:
        UserError: no machine has it.
    """
    found: dict[str, float] = {}
    offered = [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    if device == "cuda":
        found["GPU"] = 1
    if any("DISK" in resources for resources in offered):
        found["DISK"] = MINOR_COST / GB
    if not any(all(resources.get(name, 0) >= least for name, least in found.items()) for resources in offered):
        wanted = " ".join(f"{name}={least:g}" for name, least in found.items())
        raise UserError(f"no machine of the scheduler offers {wanted}", f'dask worker ... --resources "{wanted}"')
    return found


def expect_machines(client: Any, paths: Paths) -> None:
    """Refuse machines that have other sources, that share a folder, or that would run two tasks in one.

    Raises:
        UserError: the message names the machine.
    """
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=FIRST)
    try:
        told: Mapping[str, dict[str, str]] = client.run(facts)
    except ImportError as error:
        raise UserError(f"a machine has no checkout where it was started: {error}", _start(client)) from None
    if not told:
        raise _unreachable(f"no machine came to the scheduler in {FIRST:.0f} s", _start(client))
    here = suite_digest(paths.root)
    threads = client.nthreads()
    homes: dict[str, str] = {home(paths): "this run"}
    for address, about in told.items():
        if about["digest"] != here:
            raise UserError(
                f"{address} has other sources than this checkout", f"git -C {about['root']} checkout COMMIT, there"
            )
        if threads.get(address, 1) > 1:
            raise UserError(f"{address} would run {threads[address]} tasks in one folder", _start(client))
        if about["home"] in homes:
            both = f"{address} and {homes[about['home']]} write to one folder, {about['home']}"
            raise UserError(both, "KVCONFORM_HOME=DIR for each worker that is started here")
        homes[about["home"]] = address


@contextlib.contextmanager
def _cluster(hosts: Hosts, device: str) -> Iterator[Any]:
    """A scheduler in this process, and a worker on each host, begun by SSH; all end with the block."""
    distributed = _import("distributed")
    _import("asyncssh")
    from distributed.deploy.ssh import Worker

    far = [name for name in hosts.names if not _is_loopback(name)]
    if far and _is_loopback(hosts.scheduler):
        message = f"the scheduler listens on {hosts.scheduler} alone, which {', '.join(far)} cannot reach"
        raise UserError(message, "--scheduler-host ADDRESS: this machine's, in a network whose users you trust")
    # The shell of the host reads this: variables before the interpreter, after Dask's own.
    python = f"PYTHONPATH={shlex.quote(str(hosts.root))} {shlex.quote(hosts.python)}"
    options: dict[str, Any] = {"nthreads": 1, "resources": {"GPU": 1} if device == "cuda" else None}
    # A worker whose scheduler went away while it started would look for it for ever.
    options["death_timeout"] = FIRST
    workers = {
        name: {
            "cls": Worker,
            "options": {
                "address": name,
                "connect_options": {},
                "kwargs": {**options, "name": name},
                "remote_python": python,
            },
        }
        for name in hosts.names
    }
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {"host": hosts.scheduler, "port": 0, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"},
    }
    try:
        cluster = distributed.SpecCluster(workers, scheduler, name="kvconform", silence_logs=logging.ERROR)
    except Exception as error:
        # asyncssh, the network and Dask each have errors of their own.
        raise _unreachable(f"no worker could be begun on {', '.join(hosts.names)}: {error}", "ssh HOST true") from error
    with cluster:
        yield cluster


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(name)).is_loopback
    except OSError:
        return False


def _tcp(on: str) -> str:
    kind, _, rest = on.partition("://")
    if kind != "dask" or not rest.rpartition(":")[2].isdigit():
        raise UserError(f"--on {on!r}: write dask://HOST:PORT", "python -m matrix run --on dask://127.0.0.1:8786")
    return f"tcp://{rest}"


def _start(client: Any) -> str:
    return START.format(address=client.scheduler.address)


def _unreachable(message: str, command: str = "python -m distributed.cli.dask_scheduler --host 127.0.0.1") -> UserError:
    return UserError(message, command, ExitCode.UNRESOLVED)


def _import(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise UserError(f"{name} is not installed, which runs on more than one machine need", INSTALL) from None
