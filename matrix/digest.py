"""One number for the suite: two records with the same digest were made by the same code."""

from __future__ import annotations

import hashlib
from pathlib import Path


def suite_digest(source: Path) -> str:
    """The SHA-256 over every Python file under a folder, paths and bytes, in the order of the paths.

    Args:
        source: `src/kvconform`.

    Returns:
        64 hexadecimal digits; the same on every machine for the same files.
    """
    total = hashlib.sha256()
    for path in sorted(source.rglob("*.py"), key=lambda path: path.relative_to(source).as_posix()):
        total.update(path.relative_to(source).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()
