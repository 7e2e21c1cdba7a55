from __future__ import annotations

import pytest

from matrix.collect import uv
from matrix.errors import ExitCode, MakingError, UnresolvedError

NO_SOLUTION = """error: No solution found when resolving dependencies
  cause: Because only torch<=2.15.0 is available and you require torch==9.9.*, we can conclude that your
         requirements are unsatisfiable.
"""
OFFLINE = """error: No solution found when resolving dependencies
  cause: Because torch was not found in the cache and you require torch==2.5.*, we can conclude that your requirements
         are unsatisfiable.

hint: Packages were unavailable because the network was disabled. When the network is disabled, registry packages may
only be read from the cache.
"""
REFUSED = """error: Failed to fetch: http://user:secret@127.0.0.1:9/simple/torch/
  cause: error sending request for url (http://user:secret@127.0.0.1:9/simple/torch/)
  cause: client error (Connect)
  cause: tcp connect error
  cause: Connection refused (os error 111)
"""
FULL = "error: Failed to install\n  cause: failed to write to file: No space left on device (os error 28)\n"


@pytest.mark.parametrize(
    ("output", "kind", "told"),
    [
        (NO_SOLUTION, UnresolvedError, "only torch<=2.15.0 is available"),
        (OFFLINE, MakingError, "did not answer"),
        (REFUSED, MakingError, "Connection refused"),
        (FULL, MakingError, "disk is full"),
        ("error: something new\n", MakingError, "something new"),
        ("", MakingError, "uv failed"),
    ],
)
def test_what_failures_mean(output: str, kind: type[Exception], told: str) -> None:
    error = uv.explain(output)
    assert type(error) is kind
    assert told in error.message
    assert error.exit_code == ExitCode.UNRESOLVED


@pytest.mark.parametrize("output", [NO_SOLUTION, OFFLINE, REFUSED, FULL, "word " * 500])
def test_a_reason_has_at_most_two_lines_and_no_secrets(output: str) -> None:
    lines = uv.two_lines(output).splitlines()
    assert 1 <= len(lines) <= 2
    assert all(len(line) <= 150 for line in lines)
    assert "secret" not in uv.two_lines(output)


def test_uv_never_downloads_an_interpreter_nor_sees_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "automatic")
    found = uv.variables()
    assert found["UV_PYTHON_DOWNLOADS"] == "never"
    assert "VIRTUAL_ENV" not in found
