"""`python -I -S python.py ARGUMENTS`: what `python ARGUMENTS` is, but forked from the warm process where there is one.

The warm process (:mod:`kvconform_conformance.runner.warm`) has imported torch and transformers. It listens at the
address in the environment. Where nobody listens there, or the warm process cannot fork safely, this becomes a plain
Python, which imports them itself.

This process stays beside the forked one: who ends it ends the forked one, and it ends when the forked one does.
It imports only the standard library, since it starts once a worker.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

ADDRESS = "KVCONFORM_WARM_PROCESS"
"""The variable with the path of the warm process' socket."""

STARTED = b"+"
"""What the warm process answers once it has forked."""


def options() -> list[str]:
    """What to give a Python first, so that it is forked from the warm process; nothing where there is none."""
    return ["-I", "-S", __file__] if ADDRESS in os.environ else []


def main(arguments: list[str]) -> int:
    """Run in a fork of the warm process, or as a plain Python."""
    # Ctrl-C reaches the forked process too, whose answer to it counts.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = _forked(arguments)
    if code is None:
        signal.signal(signal.SIGINT, before)
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell is the point
    return code


def _forked(arguments: list[str]) -> int | None:
    """The exit code of the forked process; None where none was started."""
    address = os.environ.get(ADDRESS)
    if not address:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError:
            return None
        try:
            socket.send_fds(connection, [b"."], [0, 1, 2])
            connection.sendall(json.dumps({"arguments": arguments, "folder": os.getcwd()}).encode() + b"\n")  # noqa: PTH109 - pathlib costs a start
            started = connection.recv(1) == STARTED
        except OSError:
            started = False
        if not started:
            # A run that ends, for Ctrl-C, removes the address: nobody waits for this process any more.
            return None if os.path.exists(address) else 1  # noqa: PTH110 - pathlib costs a start
        # The forked process has the only ends of these pipes now: its end is theirs.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        return int(connection.recv(16) or b"1")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
