"""A line for each step of preparing a cell.

Resolving takes seconds, a download minutes, and the first checks half a minute: without these lines they pass in
silence. They go to stderr, as the progress of the suite does, on a terminal and in a log alike.
"""

from __future__ import annotations

import sys


def show(cell: str, text: str) -> None:
    """Print what is done next for a cell."""
    print(f"{cell}: {text}", file=sys.stderr, flush=True)
