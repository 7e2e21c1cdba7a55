"""`python -m kvconform`: which command runs, and how a wrong one ends."""

from __future__ import annotations

import pytest

from kvconform import __version__
from kvconform.__main__ import main


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_the_packages(option, capsys):
    assert main([option]) == 0
    assert capsys.readouterr().out == f"kvconform {__version__}\n"


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    assert "check" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["chekc"]])
def test_what_is_no_command_ends_with_2_and_the_usage(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: python -m kvconform" in capsys.readouterr().err
