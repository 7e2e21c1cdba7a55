"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from matrix.errors import MakingError, UserError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says when there is no room."""


def writing_failed(error: OSError) -> UserError:
    """The error that the user sees when something could not be written."""
    if error.errno in FULL:
        return MakingError("the disk is full", "uv cache prune && df -h .")
    return MakingError(f"cannot write: {error}", "df -h . && id")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside a path, which takes the path's place when the block ends well.

    Raises:
        UserError: it could not be written; what was there before stays, and nothing is left beside it.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise writing_failed(error) from None
    finally:
        # Where a file stands in place of the folder there is nothing to remove, and that error would hide the first.
        with contextlib.suppress(NotADirectoryError):
            part.unlink(missing_ok=True)


def put(path: Path, text: str) -> None:
    """Write a text, and leave a file alone that already says so; raises what `replacing` does."""
    content = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == content:
        return
    with replacing(path) as part:
        part.write_bytes(content)
