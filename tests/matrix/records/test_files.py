"""Record files: what is written reads back, what is torn or malformed is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.cells.cell import Cell
from matrix.errors import UserError
from matrix.records import files
from matrix.records.lines import CellRun, Environment, Record, dump
from tests.matrix import factories
from tests.matrix.strategies import ENVIRONMENTS, RECORDS


@given(
    environment=ENVIRONMENTS,
    answers=st.lists(RECORDS, unique_by=lambda record: (record.subject, record.id), max_size=4),
)
def test_run_round_trips(
    tmp_path_factory: pytest.TempPathFactory, environment: Environment, answers: list[Record]
) -> None:
    run = CellRun(environment, tuple(answers), complete=True, finished="2026-11-21T10:00:00Z")
    path = tmp_path_factory.mktemp("run") / "x.jsonl"
    path.write_text(dump(run), encoding="utf-8")
    assert files.read(path) == run


def test_planned_without_an_answer_is_missing(tmp_path: Path) -> None:
    path = _file(
        tmp_path, _header(), _plan("a/one", "a/two"), {"kind": "started", "subject": "kvconform", "id": "a/two"}
    )
    run = files.read(path)
    assert [(each.status, each.message) for each in run.records] == [
        ("missing", "planned, never started"),
        ("missing", "started, never ended"),
    ]
    assert not run.complete


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_not_an_answer(tmp_path: Path, cut: int) -> None:
    path = _file(tmp_path, _header(), _plan("a/one"), _check("a/one"))
    path.write_bytes(path.read_bytes()[: -cut - 1])
    run = files.read(path)
    assert [each.status for each in run.records] == ["missing"]
    assert not run.complete


def test_a_last_line_that_only_lacks_its_newline_counts(tmp_path: Path) -> None:
    path = _file(tmp_path, _header(), _plan("a/one"), _check("a/one"))
    path.write_bytes(path.read_bytes()[:-1])
    assert [each.status for each in files.read(path).records] == ["pass"]


def test_every_prefix_of_a_file_reads_or_says_why_and_never_passes_more(tmp_path: Path) -> None:
    whole = dump(factories.cell_run("2.5", "4.53")).encode()
    passes = sum(record.status == "pass" for record in factories.cell_run("2.5", "4.53").records)
    path = tmp_path / "x.jsonl"
    for length in range(1, len(whole), 997):
        path.write_bytes(whole[:length])
        try:
            run = files.read(path)
        except UserError as error:
            assert error.next_command  # noqa: PT017 - either outcome is right
        else:
            assert not run.complete
            assert sum(record.status == "pass" for record in run.records) <= passes


MALFORMED = {
    "not JSON": (["{nonsense"], 2, "not a line of JSON"),
    "not an object": ([[]], 2, "not a JSON object"),
    "unknown kind": ([{"kind": "verdict"}], 2, '"kind" is "verdict"'),
    "second header": (["HEADER"], 2, 'a second "cell" line'),
    "answered twice": (["PLAN", "CHECK", "CHECK"], 4, "a/one is answered twice"),
    "not planned": (["CHECK"], 2, "was not planned"),
    "planned twice": ([{"kind": "planned", "checks": [["s", "a"], ["s", "a"]]}], 2, "is planned twice"),
    "plan of a wrong shape": ([{"kind": "planned", "checks": ["a"]}], 2, "pairs"),
    "a status of its own": (["PLAN", {"status": "fine"}], 3, '"status" is "fine"'),
    "missing written": (["PLAN", {"status": "missing"}], 3, '"status" is "missing"'),
    "seconds as text": (["PLAN", {"seconds": "1"}], 3, '"seconds" is "1", expected int or float'),
    "counts that lie": (
        ["PLAN", {"kind": "end", "finished": None, "outcome": "complete", "counts": {"pass": 2}}],
        3,
        '"counts"',
    ),
    "complete without a plan": (
        [{"kind": "end", "finished": None, "outcome": "complete", "counts": {}}],
        2,
        "planned nothing",
    ),
    "after the end": (
        ["PLAN", {"kind": "end", "finished": None, "outcome": "interrupted", "counts": {}}, "CHECK"],
        4,
        "follows",
    ),
    "a bool for a number": (["PLAN", {"seconds": True}], 3, '"seconds" is true'),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_line_is_one_error_with_file_line_and_next_command(tmp_path: Path, name: str) -> None:
    lines, number, text = MALFORMED[name]
    named = {"HEADER": _header(), "PLAN": _plan("a/one"), "CHECK": _check("a/one")}
    whole = [named.get(line, line) if isinstance(line, str) else line for line in lines]
    whole = [_check("a/one") | line if isinstance(line, dict) and "kind" not in line else line for line in whole]
    path = _file(tmp_path, _header(), *whole)
    with pytest.raises(UserError) as caught:
        files.read(path)
    assert caught.value.message.startswith(f"{path}:{number}: ")
    assert text in caught.value.message
    assert caught.value.next_command == "python -m matrix run --rerun --select torch2.5-tf4.53-py3.11-cpu"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema": 9}, "schema 9 is not the schema 2"),
        ({"cell": "somewhere"}, "is no cell id"),
        ({"torch": "2.6.0"}, "ran torch 2.6.0"),
        ({"torch": "2.50.0"}, "ran torch 2.50.0"),
        ({"transformers": "4.5.3"}, "ran transformers 4.5.3"),
        ({"python": "3.12.1"}, "ran python 3.12.1"),
        ({"subjects": [1]}, "expected a list of strings"),
    ],
)
def test_a_header_of_another_schema_or_environment_is_refused(
    tmp_path: Path, change: dict[str, object], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        files.read(_file(tmp_path, _header() | change))


def test_an_interrupted_end_is_no_complete_run(tmp_path: Path) -> None:
    end = {"kind": "end", "finished": None, "outcome": "interrupted", "counts": {"pass": 1}}
    assert not files.read(_file(tmp_path, _header(), _plan("a/one"), _check("a/one"), end)).complete


def test_unresolved_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "records" / "x.jsonl"
    files.write_unresolved(path, Cell("2.5", "5.23"), "transformers 5.23 needs torch>=2.6\nand you asked for 2.5")
    run = files.read(path)
    assert run.unresolved == "transformers 5.23 needs torch>=2.6\nand you asked for 2.5"
    assert run.complete
    assert not run.whole
    assert [each.name for each in path.parent.iterdir()] == ["x.jsonl"]


def _file(folder: Path, *lines: object) -> Path:
    path = folder / "torch2.5-tf4.53-py3.11-cpu.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def _header() -> dict[str, object]:
    return factories.environment().to_json()


def _plan(*names: str) -> dict[str, object]:
    return {"kind": "planned", "checks": [["kvconform", name] for name in names]}


def _check(name: str) -> dict[str, object]:
    return factories.record(name).to_json()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"seconds": 0.5', '"seconds": NaN', "NaN is no number"),
        ('"seconds": 0.5', '"seconds": -1', "no time that a check can take"),
        ('"seconds": 0.5', '"seconds": 1' + "0" * 400, "no time that a check can take"),
        ('"seconds": 0.5', '"seconds": 0.5, "seconds": 0.5', '"seconds" is there twice'),
        ('"seconds": 0.5', '"seconds": 0.5, "x": ' + "[" * 200_000, "nested too deep"),
        ('"seconds": 0.5', '"seconds": 0.5, "x": "' + "y" * 21_000_000 + '"', "a line of 21 MB"),
    ],
)
def test_odd_numbers_keys_and_sizes_are_one_line_with_the_file(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = dump(factories.run(factories.record()))
    assert old in text
    path = tmp_path / "torch2.5-tf4.53-py3.11-cpu.jsonl"
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=said) as error:
        files.read(path)
    assert error.value.exit_code == 2
    assert str(path) in error.value.message
    assert "\n" not in error.value.message
