"""What a run shows while it goes on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("xdist", reason="the suite runs in workers of pytest-xdist")

from kvconform_conformance.runner.summary import Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_log_gets_a_line_every_ten_seconds(capsys):
    recorder = SimpleNamespace(outcomes={}, planned=list(range(50)))
    clock = Clock()
    progress = Progress(recorder, clock)
    for second in range(25):
        clock.now = 100.0 + second
        recorder.outcomes[second] = None
        progress.pytest_runtest_logfinish()
    assert capsys.readouterr().err.splitlines() == ["11/50 checks, 10 s", "21/50 checks, 20 s"]


def test_a_terminal_gets_every_check_in_one_place(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    recorder = SimpleNamespace(outcomes={1: None}, planned=[1, 2])
    progress = Progress(recorder, Clock())
    progress.pytest_runtest_logfinish()
    progress.pytest_runtest_logfinish()
    assert capsys.readouterr().err == "\r1/2 checks\r1/2 checks"
