"""The baseline file: what a row may say, whom it speaks about, and what a slip in it costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from matrix.errors import UserError
from matrix.judge.baseline import DEFAULT, BaselineRow, glob, load_baseline
from matrix.records.lines import Environment
from tests.matrix import factories

ROW = {"check": "export/*", "status": ["fail"], "reason": "why", "fault": "torch"}


def test_the_shipped_baseline_loads_and_blames_nobody_here() -> None:
    assert [row for row in load_baseline(DEFAULT).rows if row.fault == "kvconform"] == []


def test_rows_round_trip() -> None:
    row = BaselineRow.from_json(ROW | {"torch": "<2.7", "device": "cpu", "link": "https://example.org/1"})
    assert BaselineRow.from_json(row.to_json()) == row


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("export/dynamic[strict]", "export/dynamic[strict]", True),
        ("export/dynamic[strict]", "export/dynamics", False),
        ("export/*[two-*]", "export/dynamic[two-layers]", True),
        ("{export,archive}/*", "archive/load", True),
        ("{export,archive}/*", "archives/load", False),
        ("export/a,b", "export/a,b", True),
        ("*", "anything/at[all]", True),
        ("export/?", "export/ab", False),
    ],
)
def test_globs_take_brackets_as_they_are(pattern: str, name: str, *, matches: bool) -> None:
    assert (glob(pattern).fullmatch(name) is not None) is matches


@pytest.mark.parametrize(
    ("specifier", "torch", "covered"),
    [
        ("<2.7", "2.6", True),
        ("<2.7", "2.10", False),
        (">=2.9", "2.10", True),
        ("<=2.5", "2.5.1", True),
        ("==2.5.*", "2.5", True),
        ("", "nightly", True),
    ],
)
def test_specifiers_compare_minors_as_versions(specifier: str, torch: str, *, covered: bool) -> None:
    row = BaselineRow.from_json(ROW | {"torch": specifier})
    environment = factories.environment(torch) if torch != "nightly" else factories.environment("2.9")
    assert row.covers(environment) is covered


def test_a_nightly_is_the_minor_that_it_resolved_to() -> None:
    environment = factories.environment("nightly")
    row = BaselineRow.from_json(ROW | {"torch": ">=2.15"})
    assert not row.covers(environment)
    assert row.covers(_resolved(environment, "2.16.0.dev20261121+cpu"))


MALFORMED = {
    "unknown key": ({"chek": "x"}, '"chek" is not a key'),
    "no reason": ({"reason": ""}, '"reason" is missing or empty'),
    "no status": ({"status": None}, '"status" is not there'),
    "empty status": ({"status": []}, '"status" is ""'),
    "a pass is no expectation": ({"status": "pass"}, '"status" is "pass"'),
    "a skip is no expectation": ({"status": ["fail", "skip"]}, '"status" is "skip"'),
    "nobody's fault": ({"fault": "weather"}, '"fault" is "weather"'),
    "no specifier": ({"torch": "old"}, '"torch" is "old"'),
    "a patch release": ({"transformers": "<4.53.1"}, "rows speak about minors"),
    "a script as link": ({"link": "javascript:alert(1)"}, '"link" is "javascript:'),
    "an open brace": ({"check": "{a,b"}, "a brace is not closed"),
    "braces out of order": ({"check": "}{"}, "braces out of order"),
    "a patch of another": ({"subject": "native", "patch": "vmap-masks"}, '"patch" is about "kvconform" alone'),
    "a number": ({"subject": 3}, '"subject" is 3'),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_row_is_one_error_with_row_key_and_next_command(tmp_path: Path, name: str) -> None:
    change, text = MALFORMED[name]
    path = _file(tmp_path, ROW, {key: value for key, value in (ROW | change).items() if value is not None})
    with pytest.raises(UserError) as caught:
        load_baseline(path)
    assert caught.value.message.startswith(f"{path}: row 2 (")
    assert text in caught.value.message
    assert caught.value.next_command.startswith(f"edit {path}")


@pytest.mark.parametrize("text", ["[[expected]", "version = 1", "expected = 3", "expected = [3]"])
def test_a_file_of_another_shape_is_one_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "baseline.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"baseline[.]toml"):
        load_baseline(path)


def test_the_patches_of_the_committed_rows_exist() -> None:
    from kvconform.patches.registry import PATCHES

    named = {row.patch for row in load_baseline().rows if row.patch}
    assert named
    assert named <= {patch.name for patch in PATCHES}


def _file(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "baseline.toml"
    lines = [["[[expected]]", *(f"{key} = {value!r}" for key, value in row.items())] for row in rows]
    path.write_text("\n".join(line for row in lines for line in row))
    return path


def _resolved(environment: Environment, torch: str) -> Environment:
    return dataclasses.replace(environment, torch=torch)
