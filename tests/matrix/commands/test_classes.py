from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from matrix.__main__ import main
from matrix.cells import axes
from matrix.collect import uv
from matrix.errors import ExitCode


def fake_install(*, without: str = "") -> object:
    """Lays a package of one class down, as uv does; its constructor grew an attribute in 5.0."""

    def run(arguments: Sequence[str], *, cwd: Path) -> str:
        release = arguments[-1].removeprefix("transformers==").removesuffix(".*")
        if release != without:
            package = cwd / "transformers"
            package.mkdir()
            new = "self.new = 1" if release.startswith("5.") else "pass"
            text = f"class Cache:\n    def __init__(self):\n        {new}\n"
            (package / "cache_utils.py").write_text(text, encoding="utf-8")
        return ""

    return run


def test_the_classes_of_every_release_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(uv, "run", fake_install())
    assert main(["classes", "--out", str(tmp_path / "classes.json")]) == ExitCode.OK
    told = json.loads((tmp_path / "classes.json").read_text(encoding="utf-8"))
    known = axes.load().known("transformers")
    assert told["releases"] == known
    assert told["classes"]["Cache"]["attributes"] == {"new": f"5.0..{known[-1]}"}


def test_a_table_that_cannot_be_written_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(uv, "run", fake_install())
    assert main(["classes", "--out", str(tmp_path / "file" / "classes.json")]) == ExitCode.UNRESOLVED
    assert "cannot write" in capsys.readouterr().err


def test_a_release_that_cannot_be_read_leaves_the_table_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "classes.json"
    out.write_text("before", encoding="utf-8")
    monkeypatch.setattr(uv, "run", fake_install(without="4.57"))
    assert main(["classes", "--out", str(out)]) == ExitCode.USAGE
    assert "transformers 4.57 has no transformers/cache_utils.py" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "before"
