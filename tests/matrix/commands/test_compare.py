from __future__ import annotations

import json
from pathlib import Path

import pytest

from matrix.__main__ import main
from matrix.errors import ExitCode
from matrix.records.lines import Status
from tests.matrix import factories
from tests.matrix.factories import record


def compared(folder: Path, status: Status, *options: str) -> int:
    """Compare a pass with another answer to the same check by a later suite."""
    old = factories.write(folder / "old", factories.run(record()))
    new = factories.write(folder / "new", factories.run(record(status=status), digest="e" * 64))
    return main(["compare", str(old), str(new), *options])


@pytest.mark.parametrize(("status", "code"), [("pass", ExitCode.OK), ("fail", ExitCode.REGRESSION)])
def test_the_exit_code_says_whether_ours_regressed(tmp_path: Path, status: Status, code: int) -> None:
    assert compared(tmp_path, status) == code


def test_json_holds_what_the_text_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(tmp_path, "fail")
    text = capsys.readouterr().out
    compared(tmp_path, "fail", "--format", "json")
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["kind"] == "regressed"
    assert change["id"] in text


def test_what_is_no_folder_no_file_and_no_revision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    factories.write(tmp_path / "old", factories.run(record()))
    assert main(["compare", str(tmp_path / "old"), "nowhere"]) == ExitCode.USAGE
    assert "nowhere is no folder, no file and no git revision" in capsys.readouterr().err
