"""`python -m matrix publish`: what a machine answered, taken over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from matrix.__main__ import main
from matrix.cells.axes import Axes
from matrix.cells.options import CellOptions
from matrix.commands import publish
from matrix.commands.cell import run_cell
from matrix.errors import ExitCode
from matrix.judge import publications
from matrix.paths import Paths
from matrix.records import parquet
from matrix.records.lines import Selection, dump
from tests.matrix import factories
from tests.matrix.helpers import CELL, SUITE, fake_check


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


def test_a_record_of_another_machine_is_taken_over_under_any_name(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    monkeypatch.setattr(publish, "suite", lambda _: SUITE)
    run = factories.run(factories.record(sources="DIGEST"), factories.record("device/cuda"))
    about = replace(run.environment, cell=CELL.on("cuda").id, device="cuda", gpu="NVIDIA H100")
    on_gpu = replace(run, environment=about)
    (tmp_path / "mine.jsonl").write_text(dump(on_gpu), encoding="utf-8")
    # What this machine answered itself is another thing.
    factories.write(paths.records, run)
    # A run of two checks leaves rows of the baseline without a match, which is not what this is about.
    assert main(["publish", str(tmp_path / "mine.jsonl")]) == ExitCode.REGRESSION
    said = capsys.readouterr().out
    assert f"mine.jsonl: {on_gpu.cell}, 2 checks asked on NVIDIA H100 at 2026-11-21T10:00:00Z" in said
    assert "1 of 2 answers are about the sources of this checkout" in said
    assert parquet.read(paths.published) == [on_gpu]
    page = json.loads((paths.site / "pair" / "2.5" / "4.53" / "data.json").read_text(encoding="utf-8"))
    assert [cell["device"] for cell in page["cells"]] == ["cuda"]
    assert main(["publish", str(tmp_path / "mine.jsonl")]) == ExitCode.REGRESSION
    assert "it is published already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"selection": Selection(categories=("device",))}, "only --category device was asked"),
        ({"subjects": ("native",)}, "only native was asked"),
        ({"cell": "torch2.6-tf4.53-py3.11-cuda"}, "ran torch 2.5.1"),
    ],
)
def test_a_record_that_cannot_be_taken_over_says_why(
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    change: dict[str, object],
    why: str,
) -> None:
    monkeypatch.setenv("KVCONFORM_HOME", str(paths.home))
    monkeypatch.setattr(publish, "suite", lambda _: SUITE)
    run = factories.run(factories.record())
    parquet.write(paths.published, [factories.run(factories.record(), torch="2.7")])
    wrong = replace(run, environment=replace(run.environment, **change))  # type: ignore[arg-type]
    (tmp_path / "mine.jsonl").write_text(dump(wrong), encoding="utf-8")
    assert main(["publish", str(tmp_path / "mine.jsonl")]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert why in said.out + said.err
    assert len(parquet.read(paths.published)) == 1
