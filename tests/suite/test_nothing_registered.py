"""No check passes for a subject that registers nothing, unless its docstring says why."""

import importlib
import json

import pytest

from kvconform_conformance.runner import cli

pytest.importorskip("xdist", reason="the suite runs in workers of pytest-xdist")
pytest.importorskip("transformers", reason="the suite is about transformers")

NOTHING = "mutants.planted:nothing_registered"
# The others take a minute, and each of their checks begins by flattening a cache.
CATEGORIES = ("registration", "round-trip", "behaviour", "device", "kvcache", "export", "dynamic-shape")


def docstring(check):
    category, _, name = check.partition("[")[0].partition("/")
    module = importlib.import_module(f"kvconform_conformance.test_{category.replace('-', '_')}")
    return getattr(module, f"test_{name.replace('-', '_')}").__doc__


def test_what_passes_says_why(tmp_path):
    record = tmp_path / "record.jsonl"
    asked = [f"--category={name}" for name in CATEGORIES]
    assert cli.main(["--subject", NOTHING, "--device=cpu", "--jobs=1", "--quiet", "--record", str(record), *asked]) == 1
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    passed = {line["id"] for line in lines if line["kind"] == "check" and line["status"] == "pass"}
    silent = sorted(check for check in passed if "passes without any registration" not in docstring(check))
    assert silent == []
    assert len(passed) < 0.15 * sum(line["kind"] == "check" for line in lines)
