from __future__ import annotations

import pytest

from matrix.collect import steps
from tests.matrix.helpers import CELL


def test_a_step_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    steps.show(CELL.venv, "running the checks")
    told = capsys.readouterr()
    assert told.err == "torch2.5-tf4.53-py3.11: running the checks\n"
    assert told.out == ""
