"""`check --repeat`: a status that depends on what ran before is found, and a suite that answers alike is told so."""

import subprocess
import sys

import pytest

from kvconform_conformance.runner.repeat import differences

pytest.importorskip("xdist", reason="the suite runs in workers of pytest-xdist")
pytest.importorskip("transformers", reason="the suite is about transformers")

ORDERLY = """
import pytest

@pytest.mark.parametrize("number", range(6))
def test_number(subject, number):
    assert number != 3
"""
DISORDERLY = """
import pytest

seen = []

@pytest.mark.parametrize("number", range(6))
def test_number(subject, number):
    seen.append(number)
    assert seen == sorted(seen)
"""


def repeat(tmp_path, text, *arguments):
    (tmp_path / "test_order.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "kvconform", "check", "--suite", str(tmp_path), "--subject", "native"]
    line = [*command, "--jobs", "1", "--device", "cpu", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)


def test_what_depends_on_the_order_is_found(tmp_path):
    answer = repeat(tmp_path, DISORDERLY, "--repeat", "2")
    assert answer.returncode == 1, answer.stderr
    assert "pass, then fail (--shuffle=1)" in answer.stdout


def test_the_same_every_time(tmp_path):
    answer = repeat(tmp_path, ORDERLY, "--repeat", "2", "-k", "order")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("2 runs of 6 checks: 0 statuses differ from the first run's\n")


def test_a_run_that_cannot_run_ends_it(tmp_path):
    answer = repeat(tmp_path, ORDERLY, "--repeat", "2", "-k", "nothing-like-this")
    assert answer.returncode == 3
    assert "ended with 3" in answer.stderr


@pytest.mark.parametrize("arguments", [("--repeat", "1"), ("--repeat", "2", "--shuffle", "1")])
def test_bad_requests(tmp_path, arguments):
    answer = repeat(tmp_path, ORDERLY, *arguments)
    assert (answer.returncode, answer.stderr.count("error:")) == (2, 1)


def test_differences():
    first, again = {("s", "a"): "pass", ("s", "b"): "fail"}, {("s", "a"): "pass", ("s", "c"): "pass"}
    assert list(differences(first, again, "how")) == ["s b: fail, then not run (how)", "s c: not run, then pass (how)"]
