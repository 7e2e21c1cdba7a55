from __future__ import annotations

import pytest

from matrix.__main__ import main
from matrix.cells.cell import Cell
from matrix.cells.options import EVERY_SUBJECT, CellOptions
from matrix.collect.digest import Suite
from matrix.commands import bisect
from matrix.errors import ExitCode
from matrix.paths import Paths
from matrix.records.lines import Status
from tests.matrix import factories
from tests.matrix.factories import record

CHECK = "round-trip/one"
RELEASES = ("4.54", "4.55", "4.56", "4.57")
FIRST_PASS = "4.56"


def status_of(release: str) -> Status:
    return "fail" if release < FIRST_PASS else "pass"


@pytest.fixture
def home(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A machine that answered every release but 4.55, each with the present suite; cells are never run."""
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    monkeypatch.setattr(bisect, "suite", lambda _: Suite("DIGEST", {"kvconform": {"round-trip": "DIGEST"}}))
    for release in RELEASES:
        if release != "4.55":
            answer = record(CHECK, status_of(release), sources="DIGEST")
            made = factories.run(answer, torch="2.15", transformers=release, subjects=EVERY_SUBJECT)
            factories.write(paths.records, made)
    return paths


def test_a_release_without_an_answer_is_asked_the_one_category(
    home: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, CellOptions]] = []

    def run(cell: Cell, options: CellOptions, paths: Paths) -> None:
        asked.append((cell.transformers, options))
        made = factories.run(
            record(CHECK, status_of(cell.transformers), sources="DIGEST"),
            torch=cell.torch,
            transformers=cell.transformers,
            subjects=options.subjects,
            selection=factories.Selection(categories=options.categories),
        )
        factories.write(options.folder(paths), made)

    monkeypatch.setattr(bisect, "_run", run)
    assert main(["bisect", CHECK, "--torch", "2.15", "--transformers", "4.54..4.57"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert f"kvconform {CHECK}: fail until torch2.15-tf4.55-py3.11-cpu, pass since torch2.15-tf4.56-py3.11-cpu" in out
    assert [release for release, _ in asked] == ["4.55"]
    assert asked[0][1].categories == ("round-trip",)
    assert asked[0][1].subjects == ("kvconform",)
    assert "  asking torch2.15-tf4.55-py3.11-cpu\n" in out


def test_a_cell_that_cannot_be_asked_ends_it_with_the_cells_words(
    home: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["sh", "-c", "echo 'error: nothing is called that' >&2; exit 2"]
    monkeypatch.setattr(bisect, "session_command", lambda *_: lambda _: line)
    assert main(["bisect", CHECK, "--torch", "2.15", "--transformers", "4.54..4.57"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "torch2.15-tf4.55-py3.11-cpu could not be asked:\nerror: nothing is called that" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["one", "--torch", "2.5..2.6"], "'one' is no check"),
        ([CHECK], "give one range"),
        ([CHECK, "--torch", "2.5..2.6", "--transformers", "4.54..4.57"], "give one range"),
    ],
)
def test_a_request_without_a_check_or_one_range_is_refused(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bisect", *argv]) == ExitCode.USAGE
    assert said in capsys.readouterr().err
