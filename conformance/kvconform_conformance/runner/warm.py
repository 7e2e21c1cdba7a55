"""The warm process: imports torch and transformers once, then forks a process for every worker that is started.

To import them takes seconds, and each worker, also each that takes the place of one that crashed, would pay that again.

A fork copies one thread. What other threads held stays locked in the copy for ever, so the warm process forks only
where the platform tells that it has a single thread (Linux) and no CUDA device is used. Everywhere else, and where it
ends for whatever reason, workers are plain Python processes (:mod:`kvconform_conformance.runner.python`).

A forked worker is as alone as a plain one: it has no tables, subjects or checks of another. The warm process never
enters a subject.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvconform_conformance.runner.python import ADDRESS, STARTED

_THREADS = Path("/proc/self/task")
_WAITING = 64
_ENDING = 3.0


@contextlib.contextmanager
def warm_workers(folder: Path, device: str) -> Iterator[str]:
    """Start a warm process for the length of a run, and give the Python command that its workers are started with.

    The command is a plain Python where the platform does not fork safely, or `device` is not the CPU: a process that
    has asked for CUDA devices must not be forked.
    """
    # A run inside a worker of another run has workers of its own.
    os.environ.pop(ADDRESS, None)
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("python.py"))]
    address = folder / "warm"
    # In a worker's specification two slashes end the path.
    if device != "cpu" or not _THREADS.is_dir() or "//" in shlex.join(launcher):
        yield shlex.quote(sys.executable)
        return
    with contextlib.ExitStack() as started:
        try:
            started.enter_context(_process(address))
        except OSError:
            # A temporary folder whose path is too long for a socket.
            yield shlex.quote(sys.executable)
        else:
            yield shlex.join(launcher)


@contextlib.contextmanager
def _process(address: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        # Whoever connects before the imports are done waits for them.
        listener.listen(_WAITING)
        # Ctrl-C is for the controller: a process ignores from its start what was ignored where it was started.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "kvconform_conformance.runner.warm", str(listener.fileno())],
                env={**os.environ, ADDRESS: str(address)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
            )
        finally:
            signal.signal(signal.SIGINT, before)
    assert process.stdin is not None
    os.environ[ADDRESS] = str(address)
    try:
        yield
    except BaseException:
        # The run did not come to its workers, so there is nothing to end but the imports.
        process.kill()
        raise
    finally:
        os.environ.pop(ADDRESS, None)
        # Launchers that still wait see by this that the run has ended, and start nothing.
        address.unlink()
        # It ends when this pipe does, unless it is still importing.
        process.stdin.close()
        try:
            process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def has_one_thread() -> bool:
    """Whether this process may fork: the platform tells of one thread, whoever started it."""
    return _THREADS.is_dir() and len(list(_THREADS.iterdir())) == 1


class Server:
    """The loop of the warm process: forks on request, ends what lost its launcher, tells launchers of what ended."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.running: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()

    def serve(self) -> tuple[list[str], str] | None:
        """Serve until the controller is gone; in a forked process, return its arguments and folder at once."""
        woken, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (self.listener, woken, sys.stdin):
            self.selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    # Nothing is ever written there: it is readable when the run has ended, or its controller.
                    self._end()
                    return None
                if key.fileobj is woken:
                    woken.recv(_WAITING)
                elif key.fileobj is self.listener:
                    asked = self._accept()
                    if asked is not None:
                        signal.set_wakeup_fd(-1)
                        woken.close()
                        wake.close()
                        return asked
                elif key.data in self.running:
                    # A launcher writes nothing after its request: it has ended.
                    os.kill(key.data, signal.SIGKILL)
            self._reap()

    def _accept(self) -> tuple[list[str], str] | None:
        """Fork for one launcher: None in the warm process, the request in the forked one."""
        connection, _ = self.listener.accept()
        request = _request(connection)
        if request is None:
            connection.close()
            return None
        asked, descriptors = request
        process = os.fork()
        if process == 0:
            self._leave(connection)
            _take_over(descriptors)
            return asked
        for descriptor in descriptors:
            os.close(descriptor)
        self.running[process] = connection
        self.selector.register(connection, selectors.EVENT_READ, process)
        with contextlib.suppress(OSError):
            connection.sendall(STARTED)
        return None

    def _end(self) -> None:
        """End what still runs, a worker that hangs too."""
        for process, connection in self.running.items():
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            connection.close()

    def _leave(self, connection: socket.socket) -> None:
        """Close, in a forked process, what belongs to the warm one."""
        self.selector.close()
        for one in (self.listener, connection, *self.running.values()):
            one.close()

    def _reap(self) -> None:
        """Tell the launchers of processes that have ended."""
        while self.running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            connection = self.running.pop(process)
            self.selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(str(abs(os.waitstatus_to_exitcode(status))).encode())
            connection.close()


def _request(connection: socket.socket) -> tuple[tuple[list[str], str], list[int]] | None:
    """What a launcher asks for, with its standard streams; None where it ended before it asked."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    text = b""
    while not text.endswith(b"\n"):
        piece = connection.recv(4096)
        if not piece:
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        text += piece
    asked = json.loads(text)
    return (asked["arguments"], asked["folder"]), descriptors


def _take_over(descriptors: list[int]) -> None:
    """Make a launcher's standard streams those of this process, and signals as in a new one."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115


def run(arguments: list[str], folder: str) -> None:
    """Do what `python` does with these arguments: `-c CODE` or `-m MODULE ARGUMENTS`, after options without values."""
    os.chdir(folder)
    start = next(index for index, argument in enumerate(arguments) if argument in {"-c", "-m"})
    kind, what, rest = arguments[start], arguments[start + 1], arguments[start + 2 :]
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    module = types.ModuleType("__main__")
    names: dict[str, Any] = vars(module)
    names["__builtins__"] = builtins
    sys.modules["__main__"] = module
    exec(what, names)  # noqa: S102 - it is what the launcher was started with


def main(descriptor: str) -> None:
    """Import, then serve. Started with Ctrl-C ignored."""
    from kvconform_conformance.runner.plugin import prepare_torch

    with socket.socket(fileno=int(descriptor)) as listener:
        prepare_torch()
        asked = Server(listener).serve() if has_one_thread() else None
    if asked is not None:
        run(*asked)


if __name__ == "__main__":
    main(sys.argv[1])
