"""Bad files of records: each is named in a line, and the good ones are published with a note."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matrix.__main__ import main
from matrix.errors import ExitCode
from matrix.records import parquet
from matrix.records.lines import dump
from tests.matrix import factories

CELLS = (("2.8", "4.57"), ("2.9", "4.57"), ("2.10", "4.57"), ("2.11", "5.4"), ("2.13", "5.5"))
BAD = {
    "nested": lambda text: text.replace('"seconds": 0.5', '"seconds": ' + "[" * 100_000),
    "huge number": lambda text: text.replace('"seconds": 0.5', '"seconds": 1' + "0" * 400),
    "endless number": lambda text: text.replace('"seconds": 0.5', '"seconds": 1' + "0" * 5000),
    "surrogate": lambda text: text.replace('"message": ""', '"message": "\\ud800"'),
    "not a number": lambda text: text.replace('"seconds": 0.5', '"seconds": NaN'),
    "negative": lambda text: text.replace('"seconds": 0.5', '"seconds": -1'),
    "twice": lambda text: text.replace('"seconds": 0.5', '"seconds": 0.5, "seconds": 0.5'),
    "NUL": lambda text: text.replace('"message": ""', '"message": "\0"'),
    "NUL at the end": lambda text: text + "\0\0\0",
    "long": lambda text: text.replace('"message": ""', '"message": "' + "y" * 21_000_000 + '"'),
    "terminal": lambda text: text.replace('"status": "pass"', '"status": "\\u001b[31m\\n"'),
    "another cell": lambda text: text.replace("torch2.8-tf4.57", "torch2.7-tf4.57").replace('"2.8.1', '"2.7.1'),
}
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _text() -> str:
    return dump(factories.run(factories.record(), torch="2.8", transformers="4.57"))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_and_withholds_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    good = factories.run(factories.record(), torch="2.15", transformers="5.23")
    folder = factories.write(tmp_path / "records", good)
    bad = folder / "torch2.8-tf4.57-py3.11-cpu.jsonl"
    spoilt = BAD[name](_text())
    assert spoilt != _text()
    bad.write_text(spoilt, encoding="utf-8")
    assert main(["report", "--records", str(folder), "--out", str(tmp_path / "out")]) == ExitCode.USAGE
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {bad}")
    assert len(errors[0]) < 1000
    assert not CONTROL.search(errors[0])
    index = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "left out, for it cannot be read: torch2.8-tf4.57-py3.11-cpu.jsonl" in index
    assert str(tmp_path) not in index
    assert "pair/2.15/5.23/" in index


def test_all_bad_files_are_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    names = []
    for (torch, release), spoil in zip(CELLS, list(BAD.values())[2:7], strict=True):
        run = factories.run(factories.record(), torch=torch, transformers=release)
        names.append(f"{run.cell}.jsonl")
        (folder / names[-1]).write_text(spoil(dump(run)), encoding="utf-8")
    cut = folder / "cut.parquet"
    parquet.write(cut, factories.smoke_runs())
    cut.write_bytes(cut.read_bytes()[:-100])
    assert main(["report", "--records", str(folder), "--out", str(tmp_path / "out")]) == ExitCode.USAGE
    told = capsys.readouterr().err
    for name in [*names, "cut.parquet"]:
        assert told.count(f"error: {folder / name}") == 1, name
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    """Any bytes in place of any others: the exit code is one of the documented, and no traceback is shown."""
    whole = _text().encode()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    path = tmp_path / "torch2.8-tf4.57-py3.11-cpu.jsonl"
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:])
    code = main(["compare", str(path), str(path)])
    told = capsys.readouterr().err
    assert code in (ExitCode.OK, ExitCode.REGRESSION) or (code == ExitCode.USAGE and str(path) in told)
    assert not CONTROL.search(told)
