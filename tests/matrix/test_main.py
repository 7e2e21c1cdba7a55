from __future__ import annotations

import pytest

from matrix.__main__ import main
from matrix.errors import ExitCode


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        ([], ExitCode.USAGE),
        (["nope"], ExitCode.USAGE),
        (["plan", "--tier", "nope"], ExitCode.USAGE),
        (["plan", "--torch", "9.9"], ExitCode.USAGE),
        (["plan", "--select", "nothing"], ExitCode.EMPTY),
        (["bisect", "round-trip/one"], ExitCode.USAGE),
        (["bisect", "one", "--torch", "2.5.."], ExitCode.USAGE),
        (["run", "--jobs", "x"], ExitCode.USAGE),
    ],
)
def test_bad_input_is_one_message_with_a_next_command(
    argv: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == code
    told = capsys.readouterr()
    assert told.err.count("error:") == 1
    assert "next: " in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_the_traceback_shows_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--torch", "9.9", "--traceback"]) == ExitCode.USAGE
    assert "Traceback" in capsys.readouterr().err


def test_a_malformed_cells_file_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matrix.cells import axes
    from matrix.errors import UserError

    def fail() -> None:
        raise UserError("cells.toml is malformed: torch.2.5", "git diff -- matrix/data/cells.toml")

    monkeypatch.setattr(axes, "load", fail)
    assert main(["plan"]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("error: cells.toml is malformed")


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "130 interrupted" in capsys.readouterr().out
