"""uv: where it is, how it is run, and what its failures mean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matrix.errors import MakingError, UnresolvedError, UserError

_NO_NETWORK = re.compile(
    r"network was disabled|error sending request|dns error|tcp connect|[Cc]onnection (refused|reset)|timed out"
    r"|Failed to fetch|failed to fetch|Request failed|Could not connect|Git operation failed|Could not resolve host",
)
_DISK_FULL = re.compile(r"No space left on device|os error 28|Disk quota exceeded|os error 122")
_UNSATISFIABLE = re.compile(r"No solution found|unsatisfiable|has no wheels|no versions of", re.IGNORECASE)
_WIDTH = 150


def find_uv() -> str:
    """The path of uv: the one on PATH, else the one that its Python package brought.

    Raises:
        UserError: there is none.
    """
    found = shutil.which("uv")
    if found:
        return found
    try:
        from uv import find_uv_bin
    except ImportError:
        raise UserError("uv is not installed", "python -m pip install -r requirements.txt") from None
    return str(find_uv_bin())


def variables() -> dict[str, str]:
    """The environment variables uv runs with: the caller's, without what would point it elsewhere."""
    found = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONHOME"}}
    # A download that cannot work costs ten seconds before it fails; interpreters are the machine's business.
    found["UV_PYTHON_DOWNLOADS"] = "never"
    found.setdefault("UV_HTTP_RETRIES", "2")
    found.setdefault("UV_NO_PROGRESS", "1")
    return found


def run(arguments: Sequence[str], *, cwd: Path, text: str | None = None) -> str:
    """Run uv and return what it printed.

    Args:
        arguments: the command line after `uv`.
        cwd: where it runs.
        text: its standard input.

    Raises:
        UnresolvedError: the resolver says that no environment satisfies what was asked.
        MakingError: the network, the disk or something else failed; nothing is known about the cell.
    """
    done = subprocess.run(
        [find_uv(), *arguments],
        cwd=cwd,
        env=variables(),
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise explain(done.stderr or done.stdout)
    return done.stdout


def explain(output: str) -> UserError:
    """The error that uv's output stands for.

    | what uv says                      | error           | a record?                       |
    |-----------------------------------|-----------------|---------------------------------|
    | no space left                     | MakingError     | no: this machine's state        |
    | a request failed, or offline      | MakingError     | no: says nothing about the cell |
    | no solution                       | UnresolvedError | yes: a fact about the pair      |
    | anything else                     | MakingError     | no                              |

    The network comes before the resolver, since an index that did not answer makes everything unsatisfiable.
    """
    if _DISK_FULL.search(output):
        return MakingError("the disk is full: uv could not write the environment", "uv cache prune && df -h .")
    if _NO_NETWORK.search(output):
        return MakingError(
            f"the package index did not answer: {two_lines(output)}", "check the network, then run it again"
        )
    if _UNSATISFIABLE.search(output):
        return UnresolvedError(two_lines(output))
    return MakingError(f"uv failed: {two_lines(output)}", "run it again with --fresh")


def two_lines(output: str) -> str:
    """The reason in uv's output, in at most two lines: its first cause, or its last words."""
    # Hosts say enough; the rest of an address may hold a token.
    plain = re.sub(r"https?://(?:[^@/\s]*@)?([^/\s)]+)[^\s)]*", r"\1", output)
    flat = re.sub(r"\s+", " ", plain).strip()
    causes = re.split(r" ?\b(?:cause|hint|error|warning): ?", flat)
    words = [part for part in causes[1:] if part] or [flat]
    if _NO_NETWORK.search(output) and len(words) > 1:
        # The first cause tells what was fetched, the last one what the system said.
        fetched = next((part for part in words if re.search(r"[Ff]ailed to|Git operation", part)), words[0])
        last = re.split(r"--- stderr|fatal:", words[-1])[-1].strip()
        words = [f"{fetched.partition(' (process')[0]} ({last})"]
    # "No solution found ..." only announces the cause that follows it.
    chosen = words[1] if len(words) > 1 and words[0].startswith("No solution found") else words[0]
    return "\n".join(textwrap.wrap(chosen, _WIDTH, max_lines=2, placeholder=" ..."))
