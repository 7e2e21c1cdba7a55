"""The published file: it loses nothing, and is whole or refused."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.__main__ import main
from matrix.errors import ExitCode, UserError
from matrix.judge.baseline import load_baseline
from matrix.judge.verdicts import judge
from matrix.paths import Paths
from matrix.records import files, parquet
from matrix.records.lines import CellRun, dump, usual_command
from tests.matrix import factories
from tests.matrix.commands.test_cell import small_disk
from tests.matrix.strategies import RUNS

__all__ = ["small_disk"]

PUBLISHED = Paths().published


def order(runs: list[CellRun]) -> list[CellRun]:
    return sorted(runs, key=lambda run: (run.cell, run.environment.started or ""))


def in_tenths(run: CellRun) -> CellRun:
    records = tuple(dataclasses.replace(record, seconds=round(record.seconds, 1)) for record in run.records)
    return dataclasses.replace(run, records=records)


def told(path: Path) -> list[list[str]]:
    """The commands of each run, read as columns."""
    runs, checks = parquet.read_columns(path)
    found: list[list[str]] = [[] for _ in runs]
    for row in checks.select([parquet.NUMBER, "reproduce"]).to_pylist():
        found[row[parquet.NUMBER]].append(row["reproduce"])
    return found


@settings(deadline=None)
@given(runs=st.lists(RUNS, max_size=4))
def test_lines_to_parquet_to_the_same_runs(tmp_path_factory: pytest.TempPathFactory, runs: list[CellRun]) -> None:
    folder = tmp_path_factory.mktemp("runs")
    written = []
    for number, run in enumerate(runs):
        path = folder / f"{number}.jsonl"
        path.write_text(dump(run), encoding="utf-8")
        written.append(files.read(path))
    parquet.write(folder / "x.parquet", written)
    read = parquet.read(folder / "x.parquet")
    assert read == order([in_tenths(run) for run in written])
    assert told(folder / "x.parquet") == [[record.reproduce for record in run.records] for run in read]
    headers = [dataclasses.replace(run, records=()) for run in order(written)]
    assert parquet.read_headers(folder / "x.parquet") == headers


def test_every_published_run_reads_and_judges_the_same_in_both_formats(tmp_path: Path) -> None:
    runs = parquet.read(PUBLISHED)
    assert len(runs) >= 79
    baseline = load_baseline()
    for run in runs:
        path = tmp_path / f"{run.cell}.jsonl"
        path.write_text(dump(run), encoding="utf-8")
        again = files.read(path)
        assert again == run
        assert judge(again, baseline) == judge(run, baseline)


def test_missing_checks_keep_their_words(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = factories.run(factories.record("a/one"), factories.record("a/two"), factories.record("a/three")).to_lines()
    started = {"kind": "started", "subject": "kvconform", "id": "a/two"}
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines[:3], started]), encoding="utf-8")
    run = files.read(path)
    assert [record.status for record in run.records] == ["pass", "missing", "missing"]
    parquet.write(tmp_path / "x.parquet", [run])
    assert parquet.read(tmp_path / "x.parquet") == [run]


def test_the_same_runs_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    runs = factories.smoke_runs()
    parquet.write(tmp_path / "a.parquet", runs)
    parquet.write(tmp_path / "b.parquet", runs[::-1])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_command_that_is_not_stored_is_the_one_that_the_suite_tells() -> None:
    from kvconform_conformance.runner.recorder import Outcome

    for subject in ("native", "kvconform with patches", "it's:mine"):
        line = Outcome(subject, "a/one[x]", "pass").to_json("cpu")
        assert line["reproduce"] == usual_command(subject, "a/one[x]")


def test_some_cells_of_many(tmp_path: Path) -> None:
    runs = factories.smoke_runs()
    parquet.write(tmp_path / "a.parquet", runs)
    assert parquet.read(tmp_path / "a.parquet", [runs[2].cell]) == [runs[2]]
    assert parquet.read(tmp_path / "a.parquet", ["torch9.9-tf9.9-py3.11-cpu"]) == []


def test_half_a_surrogate_pair_is_spelled_out(tmp_path: Path) -> None:
    parquet.write(tmp_path / "a.parquet", [factories.run(factories.record(message="caf\u00e9 \ud800"))])
    (run,) = parquet.read(tmp_path / "a.parquet")
    assert run.records[0].message == "caf\u00e9 \\ud800"


def test_a_subject_with_spaces(tmp_path: Path) -> None:
    run = factories.run(factories.record(subject="kvconform with patches"), subjects=("kvconform with patches",))
    parquet.write(tmp_path / "a.parquet", [run])
    assert parquet.read(tmp_path / "a.parquet") == [run]


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_cut_file_is_one_error_with_code_2(tmp_path: Path, keep: float, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.parquet"
    parquet.write(path, factories.smoke_runs())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if 0 < keep < 1 else int(keep)])
    assert main(["report", "--records", str(path), "--out", str(tmp_path / "out")]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert told.count("error:") == 1
    assert "a.parquet is cut off" in told
    assert f"next: git checkout -- {path}" in told
    assert not (tmp_path / "out").exists()


@settings(deadline=None, max_examples=60)
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_spoilt_byte_is_an_error_or_changes_no_check(
    tmp_path_factory: pytest.TempPathFactory, at: float, byte: int
) -> None:
    path = tmp_path_factory.mktemp("spoilt") / "a.parquet"
    runs = order(factories.smoke_runs())
    parquet.write(path, runs)
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] = byte
    path.write_bytes(content)
    try:
        found = parquet.read(path)
    except UserError:
        return
    assert [run.records for run in found] == [run.records for run in runs]


def test_a_spoilt_name_of_a_column_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write(path, factories.smoke_runs())
    whole = path.read_bytes()
    for name in (b"seconds", b"message", b"reproduce"):
        path.write_bytes(whole.replace(name, name[:-1] + b"\0"))
        for reading in (parquet.read, parquet.read_headers):
            with pytest.raises(UserError, match="that this kvconform does not know"):
                reading(path)


def test_another_table_and_another_schema_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(UserError, match="its schema is none"):
        parquet.read(path)
    parquet.write(path, factories.smoke_runs())
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({parquet.SCHEMA_KEY: "9"}), path)
    with pytest.raises(UserError, match="its schema is 9"):
        parquet.read(path)
    assert parquet.SCHEMA_KEY in table.schema.metadata


def test_a_column_that_came_later_has_its_default(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    parquet.write(path, [factories.run(factories.record())])
    table = pq.read_table(path).drop_columns(["reproduce"])
    pq.write_table(table, path)
    (run,) = parquet.read(path)
    assert run.records[0].reproduce == ""


def test_a_folder_that_cannot_be_written_keeps_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    parquet.write(path, factories.smoke_runs())
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        parquet.write(path, [])
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.parquet"]


def test_a_full_disk_keeps_what_was(small_disk: Path) -> None:
    path = small_disk / "a.parquet"
    parquet.write(path, factories.smoke_runs())
    before = path.read_bytes()
    with (small_disk / "filler").open("ab", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            pass
    with pytest.raises(UserError, match="the disk is full"):
        parquet.write(path, [factories.run(factories.record(message=str(number))) for number in range(20_000)])
    assert path.read_bytes() == before
    assert not list(small_disk.glob("*.part"))
