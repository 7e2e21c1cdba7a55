"""Goals, causes, known failures and changes: what the site and the library's summary say, from records."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given

from matrix.cells.cell import Cell
from matrix.errors import UserError
from matrix.judge.baseline import Baseline, BaselineRow, glob, load_baseline
from matrix.judge.causes import causes
from matrix.judge.changes import release_changes
from matrix.judge.failures import PAGES, Failure, load_failures, ranges
from matrix.judge.findings import findings
from matrix.judge.goals import Goal, answers, load_goals, pins
from matrix.judge.table import JudgedTable, judge_table, table_of
from matrix.judge.verdicts import judge
from matrix.records.lines import CellRun
from tests.matrix.factories import record, run
from tests.matrix.judge.test_table import runs

VMAP = "docs/known-failures/vmap-masks.md"
ROW = BaselineRow("model/a", ("fail",), "why", "transformers", torch="<2.6", transformers=">=4.53,<5.0", link=VMAP)
GOALS = [
    Goal("plain", "plain caches", "export", ("export/*",), core=True),
    Goal("models", "exported models", "export models", ("model/*",)),
    Goal("onnx", "ONNX", "export to ONNX", ("onnx/*",)),
]


def judged(*made: CellRun, rows: tuple[BaselineRow, ...] = ()) -> JudgedTable:
    return judge_table(table_of(made), Baseline(rows))


@given(runs())
def test_causes_are_the_findings_of_each_run(made: list[CellRun]) -> None:
    baseline = Baseline((BaselineRow("a/*", ("fail",), "why", "torch", link="https://example.org"),))
    found = causes(judge_table(table_of(made), baseline))
    for number, each in enumerate(made):
        one_by_one = {
            (cause.first.record.subject, cause.verdict, cause.label, tuple(cause.ids))
            for cause in findings(judge(each, baseline))
        }
        assert {(cause.subject, cause.verdict, cause.label, tuple(cause.ids)) for cause in found[number]} == one_by_one


def test_what_one_page_explains_is_one_cause() -> None:
    rows = (
        BaselineRow("a/*", ("fail",), "one", "torch", link=VMAP),
        BaselineRow("b/*", ("fail",), "two", "torch", link=VMAP),
    )
    made = run(record("a/1", "fail", message="x"), record("a/2", "fail", message="y"), record("b/1", "fail"))
    ((cause,),) = causes(judged(made, rows=rows))
    assert (cause.page, len(cause.ids), cause.label) == ("vmap-masks", 3, "known, fail")


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ([record("export/a"), record("model/a")], "yes"),
        ([record("export/a"), record("model/a", "fail")], "yes"),  # known
        ([record("export/a"), record("model/b", "fail")], "partly"),  # a regression is no exception
        ([record("export/a", "fail"), record("model/a")], "no"),
        ([record("export/a", "na"), record("model/a")], "yes"),
    ],
)
def test_one_verdict_a_subject(records: list[object], word: str) -> None:
    table = judged(run(*records), rows=(ROW,))  # type: ignore[arg-type]
    assert answers(table, GOALS)[0, "kvconform"].word == word


def test_a_goal_that_nothing_was_asked_of_is_unknown() -> None:
    answer = answers(judged(run(record("export/a"), record("onnx/a", "skip"))), GOALS)[0, "kvconform"]
    assert [answer.goal(goal.name) for goal in GOALS] == ["yes", "unknown", "unknown"]
    assert answer.lacking == {"onnx"}


def test_pins_are_the_newest_pair_that_is_whole_and_good() -> None:
    made = [
        run(record("export/a"), torch="2.5", transformers="4.53"),
        run(record("export/a"), torch="2.8", transformers="4.53"),
        run(record("export/a"), torch="2.10", transformers="4.55", complete=False),
        run(record("export/a", "fail"), torch="2.10", transformers="4.56"),
        run(record("export/a"), record("model/z", "fail"), torch="2.10", transformers="4.57"),
    ]
    table = judged(*made)
    found = pins(table, answers(table, GOALS), GOALS[0])
    assert found is not None
    assert (found.cell.torch, found.cell.transformers) == ("2.8", "4.53")
    assert found.packages == {"torch": "2.8.1", "transformers": "4.53.3", "numpy": "2.3.1"}
    assert pins(table, answers(table, GOALS), GOALS[2]) is None


def test_the_goals_of_the_project_name_checks_that_exist() -> None:
    asked = {record.id for each in _published() for record in each.records}
    table = judge_table(table_of(_published()), Baseline())
    found = answers(table, load_goals())
    for goal in load_goals():
        counts = [answer.goals[goal.name][1] for answer in found.values()]
        # Opt-in checks are published only where somebody asked them; that there are such checks, their page tells.
        listed = any(glob(check).fullmatch(f"{name}[x]") for check in goal.checks for name in _opt_in_checks())
        assert listed or any(counts), (goal.name, len(asked))
        assert listed is (goal.name in {"onnx", "executorch", "aotinductor"})


def _opt_in_checks() -> list[str]:
    listed = (Path(__file__).parents[3] / "docs" / "checks.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \| \d+ \| \(opt-in\)", listed, re.MULTILINE)


def _published() -> list[CellRun]:
    from matrix.records import parquet
    from matrix.records.sources import latest

    return latest(parquet.read(Path(__file__).parents[3] / "reports" / "records.parquet"))[-3:]


def test_broken_goals_are_refused(tmp_path: Path) -> None:
    (tmp_path / "goals.toml").write_text('[[goal]]\nname = "x"\n')
    with pytest.raises(UserError, match="checks"):
        load_goals(tmp_path / "goals.toml")


# Failures.

RELEASES = {"torch": ["2.5", "2.6", "2.7"], "transformers": ["4.52", "4.53", "4.57", "5.0", "5.1"]}


def failure(*rows: BaselineRow, fault: str = "transformers", **cells: tuple[Cell, ...]) -> Failure:
    return Failure("page", "Title", fault, "", "fix", "", [], {}, rows, cells)


def test_first_bad_and_first_good_come_from_the_baseline() -> None:
    one = failure(ROW)
    assert one.first_bad(RELEASES) == "transformers 4.53"
    assert one.first_good(RELEASES) == "transformers 5.0, or torch 2.6"
    exact = BaselineRow("a", ("fail",), "why", "transformers", transformers="==4.57")
    assert failure(exact).first_good(RELEASES) == "transformers 5.0"
    assert failure(ROW, exact).first_bad(RELEASES) == "transformers 4.53"
    since_ever = BaselineRow("a", ("fail",), "why", "transformers", transformers="<5.0")
    assert failure(since_ever).first_bad(RELEASES) == ""
    assert failure(BaselineRow("a", ("fail",), "why", "torch"), fault="torch").first_good(RELEASES) == ""


def test_without_a_row_the_records_tell_the_first_bad_release() -> None:
    cells = (Cell("2.5", "4.57"), Cell("2.6", "4.53"))
    assert failure(native=cells).first_bad(RELEASES) == "transformers 4.53"
    assert failure(native=(*cells, Cell("2.5", "4.52"))).first_bad(RELEASES) == ""


def test_what_every_release_has_begins_with_none_of_those_that_were_asked() -> None:
    one = dataclasses.replace(failure(native=(Cell("2.6", "4.57"),)), always=True)
    assert (one.first_bad(RELEASES), one.pairs) == ("", [("2.6", "4.57")])
    pages = {each.page: each.always for each in load_failures(load_baseline().rows, [])}
    assert pages["another-structure"]
    assert not pages["vmap-masks"]


def test_pairs_are_told_as_ranges() -> None:
    pairs = [("2.5", "4.52"), ("2.5", "4.53"), ("2.5", "5.0"), ("2.6", "5.1")]
    assert (
        ranges(pairs, RELEASES["transformers"]) == "torch 2.5 with transformers 4.52 to 4.53, 5.0; torch 2.6 with 5.1"
    )
    assert ranges([], RELEASES["transformers"]) == ""


def test_a_failure_is_seen_where_its_row_or_its_message_is() -> None:
    made = run(
        record("model/a", "fail"), record("x/y", "fail", "native", "StaticCache is not registered as a pytree node [a]")
    )
    table = judged(made, rows=(ROW,))
    cell = Cell("2.5", "4.53")
    found = {one.page: one for one in load_failures(table.rows, [(cell, each) for each in causes(table)])}
    assert found["vmap-masks"].cells == {"kvconform": (cell,)}
    assert found["cache-not-registered"].cells == {"native": (cell,)}
    assert found["skipped-layers"].pairs == []


def test_what_a_patch_heals_is_said_in_the_first_line() -> None:
    found = load_failures(load_baseline().rows, [])
    healed = {one.page for one in found if re.search(r"patch `[a-z-]+`", one.text)}
    assert len(healed) >= 7
    assert [one.page for one in found if one.page in healed and "kvconform.exportable" not in one.fix] == []


def test_every_page_has_a_row_and_every_row_a_page(tmp_path: Path) -> None:
    assert load_failures(load_baseline().rows, [])
    (tmp_path / "failures.toml").write_text('[[failure]]\npage = "nothing"\nfix = "x"\nsays = []\n')
    with pytest.raises(UserError, match="nothing"):
        load_failures([], [], tmp_path / "failures.toml", PAGES)


# What a release broke.


def changes(*made: CellRun, axis: str = "transformers", rows: tuple[BaselineRow, ...] = ()) -> list[object]:
    table = judged(*made, rows=rows)
    numbers = {Cell.parse(each.cell): number for number, each in enumerate(made)}
    return [
        (each.release, each.before, each.beside, [(one.kind, one.subject, one.ids, one.page) for one in each.changes])
        for each in release_changes(table, numbers, axis)
    ]


def test_a_release_is_compared_with_the_one_before_it() -> None:
    old = run(record("a/1"), record("a/2", "fail"), record("a/3", "na"), record("a/4", "na"), record("a/5"))
    new = run(
        record("model/a", "fail"),
        record("a/1", "fail"),
        record("a/2"),
        record("a/3", "fail"),
        record("a/4"),
        record("a/5", "na"),
        transformers="4.54",
    )
    row = BaselineRow("model/a", ("fail",), "why", "transformers", link=VMAP)
    assert changes(old, new, rows=(row,)) == [
        (
            "4.54",
            "4.53",
            ("2.5",),
            [
                ("broke", "kvconform", ("a/1",), ""),
                ("repaired", "kvconform", ("a/2",), ""),
                ("newly asked and failing", "kvconform", ("a/3",), ""),
                ("newly asked and failing", "kvconform", ("model/a",), "vmap-masks"),
                ("newly asked and passing", "kvconform", ("a/4",), ""),
                ("no longer asked", "kvconform", ("a/5",), ""),
            ],
        )
    ]


def test_what_only_one_of_two_suites_asks_is_no_change_of_a_release() -> None:
    old = run(record("a/1"), record("a/2"), record("a/gone"), digest="e" * 64)
    new = run(record("a/1", "fail"), record("a/2"), record("a/new", "fail"), transformers="4.54")
    (told,) = release_changes(
        judged(old, new), {Cell.parse(each.cell): at for at, each in enumerate((old, new))}, "transformers"
    )
    assert [(one.kind, one.ids) for one in told.changes] == [("broke", ("a/1",))]
    assert (told.suites, told.left) == (True, 2)


def test_causes_are_grouped_over_the_other_axis_and_numbers_do_not_matter() -> None:
    made = []
    for torch in ("2.5", "2.6"):
        made.append(run(record("a/1"), record("a/2"), torch=torch))
        broken = [record(name, "fail", message=f"bad at 0x7f0{name[-1]} [{name}]") for name in ("a/1", "a/2")]
        made.append(run(*broken, torch=torch, transformers="4.54"))
    assert changes(*made)[0][3] == [("broke", "kvconform", ("a/1", "a/2"), "")]  # type: ignore[index]


def test_releases_without_a_common_partner_are_not_compared() -> None:
    made = [run(record("a/1")), run(record("a/1", "fail"), torch="2.6", transformers="4.54")]
    assert changes(*made) == [("4.54", "4.53", (), [])]
    assert changes(made[0], run(record("a/1", "fail"), torch="2.6"), axis="torch")[0][:3] == ("2.6", "2.5", ("4.53",))  # type: ignore[index]
