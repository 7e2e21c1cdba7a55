"""`python -m matrix publish`: what a machine answered, taken over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matrix.__main__ import main
from matrix.cells.axes import Axes
from matrix.cells.options import CellOptions
from matrix.commands.cell import run_cell
from matrix.errors import ExitCode
from matrix.judge import publications
from matrix.paths import Paths
from matrix.records import parquet
from matrix.records.lines import Selection
from tests.matrix import factories
from tests.matrix.helpers import CELL, fake_check


def test_answers_are_published_once_and_complete(
    axes: Axes, paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    run_cell(CELL, CellOptions(device="cpu"), axes, paths, command=fake_check("pass"))
    assert not paths.reports.exists()
    factories.write(paths.records, factories.run(factories.record(), torch="2.6", complete=False))
    main(["publish"])
    said = capsys.readouterr().out
    assert f"published: {CELL.id}" in said
    assert "not published: torch2.6-tf4.53-py3.11-cpu: the run did not reach its end" in said
    assert [run.cell for run in parquet.read(paths.published)] == [CELL.id]
    assert {path.name for path in paths.reports.iterdir()} >= {"records.parquet", "table.md", "table.csv", "badges"}
    assert (paths.site / "index.html").exists()
    assert not (paths.reports / "index.html").exists()
    before = paths.published.read_bytes()
    main(["publish"])
    assert "it is published already" in capsys.readouterr().out
    assert paths.published.read_bytes() == before


def test_what_a_publication_changed_is_written_down_beside_it(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    factories.write(paths.records, factories.run(factories.record("a/b", "fail", message="wrong")))
    main(["publish"])
    later = factories.run(factories.record("a/b"), started="2026-11-23T10:00:00Z", digest="e" * 64)
    factories.write(paths.records, later)
    main(["publish"])
    second, first = publications.load(paths.publications)
    assert (first.cells, [cause.kind for cause in first.causes]) == ((later.cell,), ["added"])
    assert (second.date, [(cause.kind, cause.checks) for cause in second.causes]) == ("2026-11-23", [("fixed", 1)])
    assert "with kvconform: 1 fixed" in (paths.site / "changes" / "feed.xml").read_text(encoding="utf-8")
    main(["publish"])
    assert len(publications.load(paths.publications)) == 2
    capsys.readouterr()


def test_answers_to_opt_in_categories_are_published_beside_the_others(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    factories.write(paths.records, factories.run(factories.record("export/a")))
    onnx = Selection(categories=("onnx",))
    factories.write(paths.partial, factories.run(factories.record("onnx/a"), selection=onnx))
    keyword = factories.run(factories.record(), torch="2.6", selection=Selection(keyword="x"))
    factories.write(paths.partial, keyword)
    main(["publish"])
    said = capsys.readouterr().out
    assert "published: torch2.5-tf4.53-py3.11-cpu --category onnx" in said
    assert "torch2.6" not in said
    assert [run.cell for run in parquet.read(paths.optin)] == ["torch2.5-tf4.53-py3.11-cpu"]
    assert [len(run.records) for run in parquet.read(paths.published)] == [1]
    page = (paths.site / "pair" / "2.5" / "4.53" / "data.json").read_text(encoding="utf-8")
    assert json.loads(page)["subjects"]["kvconform"]["goals"]["onnx"] == "yes"
    assert json.loads(page)["subjects"]["kvconform"]["asked"] == 1
    assert (paths.site / "data" / "optin.parquet").read_bytes() == paths.optin.read_bytes()
    main(["report", "--records", str(paths.records), "--records", str(paths.partial), "--out", str(paths.home / "x")])
    again = (paths.home / "x" / "pair" / "2.5" / "4.53" / "data.json").read_text(encoding="utf-8")
    assert json.loads(again)["subjects"] == json.loads(page)["subjects"]


def test_nothing_to_publish(paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    assert main(["publish"]) == ExitCode.EMPTY
    assert "next: python -m matrix run" in capsys.readouterr().err
    factories.write(paths.records, factories.run(factories.record(), complete=False))
    assert main(["publish"]) == ExitCode.EMPTY
    assert not paths.published.exists()


def test_a_torn_published_file_is_not_written_over(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    factories.write(paths.records, factories.run(factories.record()))
    paths.reports.mkdir()
    paths.published.write_bytes(b"PAR1")
    assert main(["publish"]) == ExitCode.USAGE
    assert "next: git checkout" in capsys.readouterr().err
    assert Path(paths.published).read_bytes() == b"PAR1"
