from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matrix.__main__ import main
from matrix.collect.digest import suite_digest
from matrix.collect.machines import connect
from matrix.errors import ExitCode, UserError
from matrix.paths import Paths

ROOT = Paths().root


class Client:
    """Stands in for a client of Dask."""

    scheduler = SimpleNamespace(address="tcp://127.0.0.1:8786")

    def __init__(self, told: dict[str, dict[str, str]], *, threads: int = 1, resources: tuple[Any, ...] = ()) -> None:
        self.told, self.threads, self.resources = told, threads, resources

    def wait_for_workers(self, count: int, timeout: float) -> None:
        if not self.told:
            raise TimeoutError

    def run(self, function: object) -> dict[str, dict[str, str]]:
        return self.told

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(self.told, self.threads)

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {str(at): {"resources": each} for at, each in enumerate(self.resources)}}


def facts(home: str = "one:/home", digest: str = "") -> dict[str, str]:
    return {"digest": digest or suite_digest(ROOT), "home": home, "root": "/there"}


@pytest.mark.parametrize("missing", ["distributed", "asyncssh"])
def test_a_missing_package_is_one_error_that_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setenv("KVCONFORM_HOME", str(tmp_path))
    monkeypatch.setattr("matrix.commands.run.suite", lambda _: SimpleNamespace(current=lambda _: 0, categories=()))
    assert main(["run", "--hosts", "localhost"]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert told.splitlines() == [
        f"error: {missing} is not installed, which runs on more than one machine need",
        "  next: python -m pip install -r requirements-machines.txt",
    ]


@pytest.mark.parametrize(
    ("client", "told"),
    [
        (Client({"a": facts(digest="other")}), "a has other sources than this checkout"),
        (Client({"a": facts()}, threads=2), "a would run 2 tasks in one folder"),
        (Client({"a": facts(), "b": facts()}), "b and a write to one folder"),
        (Client({"a": facts(f"{socket.gethostname()}:{Paths().home}")}), "a and this run write to one folder"),
        (Client({}), "no machine came"),
    ],
)
def test_a_machine_that_cannot_run_these_cells_is_refused(client: Client, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        connect.expect_machines(client, Paths())
    assert caught.value.next_command


def test_machines_that_fit_are_taken() -> None:
    connect.expect_machines(Client({"a": facts(), "b": facts("two:/home")}), Paths())


def test_a_task_needs_a_gpu_for_cuda_and_room_where_machines_tell_theirs() -> None:
    assert connect.needs(Client({}, resources=({}, {})), "cpu") == {}
    assert connect.needs(Client({}, resources=({"GPU": 1}, {})), "cuda") == {"GPU": 1}
    assert connect.needs(Client({}, resources=({"DISK": 25}, {"DISK": 2})), "cpu") == {"DISK": 5}
    for device, resources in (("cuda", {}), ("cpu", {"DISK": 2}), ("cuda", {"DISK": 25})):
        with pytest.raises(UserError, match="no machine of the scheduler offers"):
            connect.needs(Client({}, resources=(resources,)), device)


def test_a_scheduler_on_loopback_is_no_use_to_machines_elsewhere() -> None:
    pytest.importorskip("distributed")
    hosts = connect.Hosts(["192.0.2.1", "localhost"], ROOT)
    with pytest.raises(UserError, match=r"127.0.0.1 alone, which 192.0.2.1 cannot reach") as caught:
        next(iter(connect.client(None, hosts, Paths(), device="cpu").gen))  # type: ignore[attr-defined]
    assert caught.value.next_command.startswith("--scheduler-host")


@pytest.mark.parametrize("on", ["127.0.0.1:8786", "dask://127.0.0.1", "tcp://127.0.0.1:8786"])
def test_the_address_is_checked(on: str) -> None:
    with pytest.raises(UserError, match="write dask://HOST:PORT"):
        connect._tcp(on)
