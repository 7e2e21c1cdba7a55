"""The published files and the commands that write them: true, escaped, reproducible."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matrix import __main__ as command_line
from matrix.errors import ExitCode, UserError
from matrix.judge.baseline import Baseline, BaselineRow
from matrix.judge.tally import ALL, STATES
from matrix.records.lines import CellRun, Record, Selection
from matrix.render import figures, report, tables
from matrix.render.grid import Results, results
from matrix.render.site import build
from matrix.render.site.schemas import SCHEMAS
from tests.matrix import factories
from tests.matrix.factories import record, run

NASTY = '<img src=x onerror=alert(1)> | `code` & "quotes" </pre></dialog><script>alert(2)</script>\n# not a heading'
ROW = BaselineRow(
    "export/known", ("fail",), "torch <b>refuses</b> it", "torch", torch="<2.6", link="https://example.org/?a=1&b"
)


@pytest.fixture(scope="module")
def found() -> Results:
    return results(mixture(), Baseline((ROW,)))


def mixture() -> list[CellRun]:
    """One place of each kind."""
    return [
        *factories.smoke_runs()[1:],
        one(record("export/known", "fail"), record("a/x", "fail", "native", NASTY), torch="2.5", transformers="4.53"),
        one(record("a/<i>", "crash", message=NASTY), torch="2.15", transformers="5.5"),
        run(record(), record("a/y", "missing"), complete=False, torch="2.13", transformers="5.23"),
        run(record(), selection=Selection(keyword="<dynamic>"), torch="2.10", transformers="4.57"),
        one(record("device/cuda", "na"), record("device/b", "skip"), torch="2.6", transformers="4.57"),
        run(torch="2.5", transformers="5.23", unresolved=NASTY),
    ]


def one(*records: Record, **about: object) -> CellRun:
    """A run of a suite of its own: others planned other checks."""
    return run(*records, digest=None, **about)


def test_every_kind_of_place_says_its_own_word(found: Results) -> None:
    (grid,) = found.grids
    words = {(place.cell.torch, place.cell.transformers): place.state("kvconform") for place in grid}
    assert words["2.5", "4.53"] == "known"
    assert words["2.15", "5.5"] == "crash"
    assert words["2.13", "5.23"] == "missing"
    assert words["2.10", "4.57"] == "partial"
    assert words["2.6", "4.57"] == "na"
    assert words["2.5", "5.23"] == "unresolved"
    text = tables.markdown(found)
    for said in ("≈ 0/1", "! 0/1 crash", "? 1/2 missing ◐", "◐ 1/1 partial", "- n/a", "⊘ no install", "·"):
        assert f"| {said}" in text, said


def test_no_tick_without_a_whole_pass_in_any_format(found: Results) -> None:
    ticked = {place.cell.id for place in found.places if place.state("kvconform") == "pass"}
    assert ticked == {each.cell for each in factories.smoke_runs()[1:]}
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(found))))
    assert {
        row["cell"] for row in rows if (row["subject"], row["category"], row["state"]) == ("kvconform", ALL, "pass")
    } == ticked
    badges = figures.badges(found)
    assert {
        name.removesuffix(".svg") for name, text in badges.items() if name.endswith("svg") and ": ✓" in text
    } == ticked


def test_releases_sort_as_versions(found: Results) -> None:
    head = next(line for line in tables.markdown(found).splitlines() if line.startswith("| transformers"))
    assert re.findall(r"\d+\.\d+", head) == ["2.15", "2.13", "2.10", "2.9", "2.8", "2.6", "2.5"]


def test_markdown_shows_messages_as_they_are(found: Results) -> None:
    text = tables.markdown(found)
    assert "<img" not in text
    assert "<script" not in text
    assert "\n# not a heading" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("- crash, regressed: `a/<i>`")]
    assert "\\| \\`code\\`" in line


def test_pictures_are_whole_and_described(found: Results) -> None:
    for text in (
        figures.figure(found),
        *(text for name, text in figures.badges(found).items() if name.endswith("svg")),
    ):
        root = ET.fromstring(text)
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "torch 2.15 and transformers 5.5: with kvconform 0 of 1 checks pass (1 crash)" in figures.figure(found)


def test_the_badge_is_green_only_if_every_cell_is(found: Results) -> None:
    good = results(factories.smoke_runs(), Baseline())
    assert json.loads(figures.badges(good)["kvconform.json"]) == {
        "schemaVersion": 1,
        "label": "torch x transformers",
        "message": "6 of 6 cells pass",
        "color": "14532d",
    }
    assert json.loads(figures.badges(found)["kvconform.json"])["color"] == "8c1a1a"


def test_the_step_summary_names_what_regressed(found: Results) -> None:
    text = tables.step_summary(found)
    assert "crash, regressed: `a/<i>`" in text
    assert "python -m nox -s \"conformance(torch='2.15', transformers='5.5')\"" in text


def test_each_lane_is_a_grid() -> None:
    one = run(record(), torch="2.5")
    others = [
        dataclasses.replace(one, environment=dataclasses.replace(one.environment, cell=f"torch2.5-tf4.53-{lane}"))
        for lane in ("py3.11-cuda", "py3.11+optree-cpu")
    ]
    every = results([*factories.smoke_runs(), *others], Baseline())
    text = tables.markdown(every)
    titles = ["Python 3.11, cpu", "Python 3.11, cuda", "Python 3.11 with optree, cpu"]
    assert [(grid.title, len(grid.places)) for grid in every.grids] == list(zip(titles, (6, 1, 1), strict=True))
    assert all(f"## {title}" in text for title in titles)
    assert every.grids[2].at("2.6", "4.48").cell.id == "torch2.6-tf4.48-py3.11+optree-cpu"


# The commands.


def test_report_writes_everything_and_again_the_same(tmp_path: Path) -> None:
    records = factories.write(tmp_path / "records", *factories.smoke_runs())
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- table -->\nold\n<!-- /table -->\nafter\n")
    for _ in range(2):
        assert report.write(records, tmp_path / "out", _baseline(tmp_path), readme) == ExitCode.OK
    once = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"table.md", "table.csv", "figure.svg", "kvconform.json"} <= set(once)
    assert report.write(records, tmp_path / "again", _baseline(tmp_path)) == ExitCode.OK
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert once == again
    text = readme.read_text()
    assert text.startswith("before\n<!-- table -->\n[![with kvconform, every check passes in 6 of 6 cells")
    assert text.endswith("<!-- /table -->\nafter\n")
    assert "old" not in text


def test_badges_of_cells_that_are_gone_go_too(tmp_path: Path) -> None:
    records = factories.write(tmp_path / "records", *factories.smoke_runs())
    report.write(records, tmp_path / "out", _baseline(tmp_path))
    (records / "torch2.5-tf4.53-py3.11-cpu.jsonl").unlink()
    report.write(records, tmp_path / "out", _baseline(tmp_path))
    assert not (tmp_path / "out" / "badges" / "torch2.5-tf4.53-py3.11-cpu.svg").exists()
    assert (tmp_path / "out" / "badges" / "torch2.6-tf4.48-py3.11-cpu.svg").exists()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (run(record(status="fail"), torch="2.7"), ExitCode.REGRESSION),
        (run(record(), complete=False, torch="2.7"), ExitCode.REGRESSION),
        (one(record(status="crash", subject="native"), torch="2.7"), ExitCode.OK),
        (run(torch="2.7", unresolved="no"), ExitCode.OK),
    ],
)
def test_the_code_of_the_report_is_that_of_its_verdicts(tmp_path: Path, more: CellRun, code: ExitCode) -> None:
    records = factories.write(tmp_path / "records", *factories.smoke_runs(), more)
    assert report.write(records, tmp_path / "out", _baseline(tmp_path)) == code


@pytest.mark.parametrize(
    "text", ["", "<!-- table -->", "<!-- /table --><!-- table -->", "<!-- table -->" * 2 + "<!-- /table -->"]
)
def test_a_readme_without_its_markers_is_refused_before_anything_is_written(tmp_path: Path, text: str) -> None:
    records = factories.write(tmp_path / "records", *factories.smoke_runs())
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(UserError, match="needs one"):
        report.write(records, tmp_path / "out", _baseline(tmp_path), tmp_path / "README.md")
    assert not (tmp_path / "out").exists()


def test_a_check_that_cannot_make_up_its_mind_is_a_note(tmp_path: Path) -> None:
    earlier, later = run(record()), run(record(subject="kvconform"), started="2026-11-22T10:00:00Z")
    later = dataclasses.replace(later, records=(record(status="fail"),))
    factories.write(tmp_path / "1", earlier)
    factories.write(tmp_path / "2", later)
    assert "flaky, fail or pass: kvconform export/dynamic[strict]" in tables.markdown(report.load(tmp_path))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = factories.write(tmp_path / "records", *factories.smoke_runs(), run(record(status="fail"), torch="2.7"))
    options = ["--records", str(records), "--out", str(tmp_path / "out"), "--baseline", str(_baseline(tmp_path))]
    assert command_line.main(["report", *options, "--summary", str(tmp_path / "s.md")]) == ExitCode.REGRESSION
    said = capsys.readouterr().out
    assert "7 cells, measured 2026-11-21" in said
    assert "torch2.7-tf4.53-py3.11-cpu: fail: export/dynamic[strict]" in said
    assert "| **4.53** |" in (tmp_path / "s.md").read_text()
    old = factories.write(tmp_path / "old", *factories.smoke_runs())
    assert command_line.main(["compare", str(old), str(records), "--format", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["changes"][0]["kind"] == "added"
    command_line.main(["report", *options, "--before", str(old)])
    since = json.loads((tmp_path / "out" / "data" / "publications.json").read_text(encoding="utf-8"))["publications"]
    assert [(each["cells"], each["causes"][0]["kind"]) for each in since] == [(["torch2.7-tf4.53-py3.11-cpu"], "added")]
    capsys.readouterr()
    assert command_line.main(["report", "--records", str(tmp_path / "none")]) == ExitCode.EMPTY
    assert "next: python -m matrix run" in capsys.readouterr().err


def test_the_published_table_is_that_of_the_committed_records(tmp_path: Path) -> None:
    reports = Path(__file__).parents[3] / "reports"
    readme = tmp_path / "README.md"
    readme.write_bytes((reports.parent / "README.md").read_bytes())
    report.write(reports / "records.parquet", tmp_path / "reports", readme=readme, site_dir=tmp_path / "site")
    summary = (tmp_path / "site" / "data" / "known.json").read_bytes()
    assert summary == (reports.parent / build.LIBRARY).read_bytes()
    for path in (tmp_path / "reports").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (reports / path.relative_to(tmp_path / "reports")).read_bytes(), path.name
    assert readme.read_bytes() == (reports.parent / "README.md").read_bytes()


def _baseline(folder: Path) -> Path:
    path = folder / "baseline.toml"
    path.write_text("")
    return path


def _keys(schema: dict[str, Any]) -> Iterator[str]:
    """The names of a document's keys, at any depth."""
    yield from schema.get("properties", {})
    for part in [*schema.get("properties", {}).values(), *schema.get("oneOf", [])]:
        yield from _keys(part)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _keys(schema[name])


def test_the_documentation_names_every_column_key_and_state() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reading-the-table.md").read_text(encoding="utf-8")
    names = {*tables.CSV_COLUMNS, *STATES}
    for schema in SCHEMAS.values():
        names |= set(_keys(schema))
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_a_subject_with_spaces_is_shown_everywhere() -> None:
    name = "kvconform with patches"
    shown = results([one(record(), record(subject=name), subjects=("kvconform", name))], Baseline())
    assert [row["subject"] for row in csv.DictReader(io.StringIO(tables.as_csv(shown)))].count(name) == 2
    assert "with kvconform and its patches" in tables.markdown(shown)
    assert not [file for file in figures.badges(shown) if " " in file]
    ET.fromstring(figures.figure(shown))


def test_control_characters_never_reach_a_picture() -> None:
    shown = results([run(torch="2.5", transformers="5.23", unresolved="bell \x07 \x1b[31m \ud800 end")], Baseline())
    ET.fromstring(figures.figure(shown))
    for name, text in figures.badge("a", "bell \x07", "\x1b[31m", "good").items():
        assert "\x07" not in text
        if name.endswith("svg"):
            ET.fromstring(text)
