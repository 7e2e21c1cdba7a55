"""The list of known skips is held against a run in both directions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TEST = """
import pytest

@pytest.mark.parametrize("name", ["one", "two"])
def test_skips(name):
    pytest.skip(f"no {name} here")

def test_runs():
    pass
"""


def row(test: str, reason: str, session: str = "tests") -> str:
    return f'[[skip]]\ntest = "{test}"\nreason = "{reason}"\nsessions = ["{session}"]\nwhy = "it is a test"\n'


@pytest.mark.parametrize(
    ("rows", "code", "told"),
    [
        (row("*::test_skips*", "no * here"), 0, []),
        (row("*", "no one here") + row("*", "no two here"), 0, []),
        (row("*", "no one here"), 1, ["*no row of skips.toml allows it: no two here"]),
        (row("*", "no * here") + row("*", "gone"), 1, ["*no test was skipped for 'gone': remove the row"]),
        (row("*", "no * here", session="another"), 1, ["*no row of skips.toml allows it: no one here"]),
    ],
)
def test_a_skip_needs_a_row_and_a_row_a_skip(pytester: pytest.Pytester, rows: str, code: int, told: list[str]) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), pytester.path / "conftest.py")
    (pytester.path / "skips.toml").write_text(rows, encoding="utf-8")
    pytester.makepyfile(test_it=TEST)
    done = pytester.runpytest_inprocess("--only-known-skips", "tests")
    assert done.ret == code
    done.stdout.fnmatch_lines(told or ["*1 passed, 2 skipped*"])


def test_the_skips_of_workers_are_seen(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests of the suite's command line leave this set in their process.
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    shutil.copy(Path(__file__).with_name("conftest.py"), pytester.path / "conftest.py")
    (pytester.path / "skips.toml").write_text(row("*", "no one here"), encoding="utf-8")
    pytester.makepyfile(test_it=TEST)
    done = pytester.runpytest_subprocess("--only-known-skips", "tests", "-n", "2")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*no row of skips.toml allows it: no two here"])


def test_without_the_option_a_skip_is_a_skip(pytester: pytest.Pytester) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), pytester.path / "conftest.py")
    pytester.makepyfile(test_it=TEST)
    assert pytester.runpytest_inprocess().ret == 0
