from __future__ import annotations

from pathlib import Path

import pytest

from matrix.cells.options import CellOptions, parse
from matrix.errors import ExitCode, UserError


@pytest.mark.parametrize(
    "options",
    [
        CellOptions(),
        CellOptions(keyword="a and not b", subjects=("native", "my.module:thing"), categories=("export",)),
        CellOptions(keyword="-x", device="cuda", torch_backend="cpu", fresh=True, timeout=3.5, jobs=2, python="3.12"),
        CellOptions(extra="optree"),
        CellOptions(records=Path("/somewhere/else")),
    ],
)
def test_options_read_back(options: CellOptions) -> None:
    assert parse(options.to_argv()) == options


@pytest.mark.parametrize("argv", [["--nope"], ["--device", "tpu"], ["--timeout", "0"], ["--timeout", "x"], ["stray"]])
def test_bad_options_are_usage_errors(argv: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(argv)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "--help" in caught.value.next_command


def test_only_what_asks_everything_becomes_the_published_record() -> None:
    assert not CellOptions(device="cuda", fresh=True, timeout=9).partial
    assert CellOptions(keyword="x").partial
    assert CellOptions(categories=("export",)).partial
    assert CellOptions(subjects=("kvconform",)).partial


def test_the_default_request_takes_what_a_release_adds() -> None:
    assert CellOptions().asks(("kvconform", "native"))
    assert CellOptions().asks(("kvconform", "native", "exporter"))
    assert not CellOptions().asks(("native",))
    assert CellOptions(subjects=("native",)).asks(("native",))
    assert not CellOptions(subjects=("native",)).asks(("kvconform", "native"))
