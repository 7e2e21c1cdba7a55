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


def releases(folder: Path) -> Path:
    """4.55 to 4.57 with one torch; 4.57 breaks a check, repairs one, and is asked one that was n/a."""
    before = [record("a/one"), record("a/two", "fail", message="old"), record("a/three", "na")]
    after = [
        record("a/one", "fail", message="new [a cache]"),
        record("a/two"),
        record("a/three", "fail", message="\x1b[31mred"),
        record("a/one", subject="native"),
    ]
    runs = [
        factories.run(*before, torch="2.9", transformers=release, subjects=("kvconform",))
        for release in ("4.55", "4.56")
    ]
    runs.append(factories.run(*after, torch="2.9", transformers="4.57"))
    return factories.write(folder / "records", *runs)


def test_a_release_against_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = releases(tmp_path)
    assert main(["compare", "--transformers", "4.56..4.57", "--records", str(folder)]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "transformers 4.57 against 4.56, with torch 2.9:",
        "  with kvconform:",
        "    broke 1: new (a/one)",
        "    repaired 1: old (a/two)",
        "    newly asked and failing 1: \\x1b[31mred (a/three)",
        "  transformers alone: not asked in both",
    ]
    main(["compare", "--transformers", "..4.57", "--records", str(folder)])
    text = capsys.readouterr().out
    assert "transformers 4.56 against 4.55, with torch 2.9:\n  with kvconform: nothing changed" in text
    main(["compare", "--transformers", "4.57", "--records", str(folder), "--format", "json"])
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["release"], one["before"], len(one["changes"])) == ("4.57", "4.56", 3)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["one"], ExitCode.USAGE),
        ([], ExitCode.USAGE),
        (["--torch", "2.8..2.9", "--transformers", "4.56"], ExitCode.USAGE),
        (["--torch", "2.9"], ExitCode.EMPTY),
        (["--transformers", "4.55"], ExitCode.USAGE),
        (["--transformers", "9.9"], ExitCode.USAGE),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, arguments: list[str], code: int) -> None:
    assert main(["compare", *arguments, "--records", str(releases(tmp_path))]) == code
