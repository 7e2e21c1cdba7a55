from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from matrix.collect.locks import hold
from matrix.errors import ExitCode, UserError


def test_the_second_is_told_who_is_first(tmp_path: Path) -> None:
    with hold(tmp_path / "l", "a run"), pytest.raises(UserError) as caught, hold(tmp_path / "l", "a run"):
        pass
    assert str(os.getpid()) in caught.value.message
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_lock_that_was_left_behind_is_free(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("99999", encoding="utf-8")
    with hold(tmp_path / "l", "a run"):
        assert (tmp_path / "l").read_text(encoding="utf-8") == str(os.getpid())
    with hold(tmp_path / "l", "a run"):
        pass


def test_one_that_waits_gets_it_when_the_other_lets_go(tmp_path: Path) -> None:
    began = threading.Event()

    def first() -> None:
        with hold(tmp_path / "l", "a run"):
            began.set()
            time.sleep(0.5)

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(5)
    with hold(tmp_path / "l", "a run", wait=30):
        assert not thread.join(5)
    with hold(tmp_path / "l", "it"), pytest.raises(UserError), hold(tmp_path / "l", "it", wait=0.3):
        pass
