"""One number for the suite: two records with the same digest were made by the same code."""

from __future__ import annotations

import hashlib
from pathlib import Path

SOURCES = ("conformance", "src")
"""The folders whose code a cell runs."""


def suite_digest(root: Path) -> str:
    """The SHA-256 over every Python file that a cell runs, paths and bytes, in the order of the paths.

    Args:
        root: the folder of the checkout.

    Returns:
        64 hexadecimal digits; the same on every machine for the same files.
    """
    total = hashlib.sha256()
    files = [path for name in SOURCES for path in (root / name).rglob("*.py")]
    for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()
