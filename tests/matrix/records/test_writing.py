from __future__ import annotations

import errno
from pathlib import Path

import pytest

from matrix.errors import ExitCode, MakingError
from matrix.records.writing import put, replacing, writing_failed


def test_a_file_takes_its_place_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as part:
        part.write_text("half", encoding="utf-8")
        assert not path.exists()
        part.write_text("whole", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("in the middle"), KeyboardInterrupt(), OSError(errno.ENOSPC, "no room")])
def test_what_was_there_stays_and_nothing_is_left_beside_it(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(MakingError if isinstance(error, OSError) else type(error)), replacing(path) as part:  # noqa: PT012
        part.write_text("half", encoding="utf-8")
        raise error
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_says_so_already_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    put(path, "é\n")
    first = path.stat()
    put(path, "é\n")
    assert path.stat().st_ino == first.st_ino
    put(path, "other\n")
    assert path.read_text(encoding="utf-8") == "other\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_so(number: int) -> None:
    error = writing_failed(OSError(number, "system's words"))
    assert error.message == "the disk is full"
    assert error.exit_code == ExitCode.UNRESOLVED


def test_another_failure_shows_the_systems_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MakingError, match=r"cannot write: .*file"):
        put(tmp_path / "file" / "inside", "text")
