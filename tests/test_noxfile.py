from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from matrix.errors import ExitCode

ROOT = Path(__file__).parents[1]


def nox(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NOX", "KVCONFORM_"))}
    if home:
        environment["KVCONFORM_HOME"] = str(home)
    return subprocess.run(
        [sys.executable, "-m", "nox", "--no-color", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def listed(*arguments: str) -> list[dict[str, object]]:
    done = nox("--list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_every_pair_on_the_axes_has_a_session() -> None:
    sessions = {entry["session"] for entry in listed("-s", "conformance")}
    assert len(sessions) == 13 * 39
    assert "conformance(torch='2.5', transformers='4.53')" in sessions
    assert "conformance(torch='nightly', transformers='main')" in sessions


def test_a_tier_is_a_tag() -> None:
    assert len(listed("-s", "conformance", "-t", "smoke")) == 6


def test_nox_alone_runs_the_tools_and_the_tests() -> None:
    assert {entry["name"] for entry in listed()} == {"lint", "tests"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["-s", "conformance(torch='9.9', transformers='4.53')"], ExitCode.USAGE, "nearest"),
        (["-s", "conformance(torch='2.5', transformers='4.53')", "--", "--nope"], ExitCode.USAGE, "unrecognized"),
        (["-s", "conformance(torch='2.5', transformers='5.23')"], ExitCode.UNRESOLVED, "needs torch >=2.6"),
        (
            ["-s", "conformance(torch='2.5', transformers='4.53')", "--", "--python", "3.99"],
            ExitCode.UNRESOLVED,
            "has wheels for Python 3.9 to 3.13",
        ),
        (["-s", "conformance(torch='2.5', transformers='4.53')", "--", "--help"], ExitCode.OK, "--subject"),
    ],
)
def test_nox_ends_with_the_documented_code(tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    done = nox(*arguments, home=tmp_path)
    assert done.returncode == code, done.stderr
    assert told in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_sessions_in_parallel_keep_the_code(tmp_path: Path) -> None:
    sessions = [f"conformance(torch='{torch}', transformers='5.23')" for torch in ("2.4", "2.5")]
    done = nox("-j", "2", "-s", *sessions, home=tmp_path)
    assert done.returncode == ExitCode.UNRESOLVED, done.stdout + done.stderr
    assert len(list((tmp_path / ".cache" / "records").glob("*.jsonl"))) == 2
