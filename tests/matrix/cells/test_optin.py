from __future__ import annotations

from pathlib import Path

import pytest

from matrix.cells import optin
from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.optin import Row
from matrix.collect import resolve
from matrix.errors import UnresolvedError, UserError
from matrix.judge.baseline import load_baseline
from matrix.judge.table import judge_table, table_of
from matrix.judge.verdicts import judge
from matrix.paths import ROOT, Paths
from tests.matrix import factories

PAGE = (ROOT / "docs" / "matrix.md").read_text(encoding="utf-8")


def test_nothing_joins_a_cell_that_is_asked_nothing_special(axes: Axes) -> None:
    assert optin.requirements(Cell("2.15", "5.23"), (), axes) == ()
    assert optin.requirements(Cell("2.15", "5.23"), ("export", "model"), axes) == ()


def test_a_category_brings_the_release_of_its_torch(axes: Axes) -> None:
    assert optin.requirements(Cell("2.9", "4.57"), ("executorch",), axes) == ("executorch==1.0.*",)
    assert optin.requirements(Cell("2.9.1", "4.57"), ("executorch",), axes) == ("executorch==1.0.*",)
    assert optin.requirements(Cell("2.10", "5.0"), ("executorch",), axes) == ("executorch==1.1.*",)
    both = optin.requirements(Cell("nightly", "5.23"), ("onnx", "executorch", "onnx"), axes)
    assert both == ("onnx", "onnxruntime", "onnxscript", "executorch==1.5.*")


def test_a_torch_without_a_release_is_unresolved(axes: Axes) -> None:
    with pytest.raises(UnresolvedError, match=r"category executorch needs goes with torch 2\.4"):
        optin.requirements(Cell("2.4", "4.44"), ("executorch",), axes)


def test_what_is_asked_more_is_another_question(axes: Axes, paths: Paths) -> None:
    plain = resolve.question(Cell("2.9", "4.57"), axes, paths, None)
    more = resolve.question(Cell("2.9", "4.57"), axes, paths, None, ("executorch==1.0.*",))
    assert plain.key != more.key
    assert set(more.requirements) - set(plain.requirements) == {"executorch==1.0.*"}


def test_every_torch_of_the_axes_has_a_row(axes: Axes) -> None:
    for torch in axes.defaults["torch"]:
        for category in ("onnx", "executorch"):
            assert optin.requirements(Cell(torch, "5.3"), (category,), axes)


@pytest.mark.parametrize("row", optin.load(), ids=lambda row: f"{row.category}-{row.torch}")
def test_the_page_shows_each_row(row: Row) -> None:
    torch = row.torch.replace("==", "")
    assert f"| {row.category} | {torch} | {', '.join(row.requirements)} | {row.note} |" in PAGE


def test_a_malformed_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "optin.toml"
    path.write_text("schema = 1\n[[packages]]\ncategory = 'onnx'\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"optin\.toml cannot be read"):
        optin.load(path)


def test_the_rows_are_of_the_categories() -> None:
    without_packages = {"more-models", "patches", "generate", "architectures", "aoti"}
    assert {row.category for row in optin.load()} == set(optin.CATEGORIES) - without_packages


def test_a_row_of_an_opt_in_category_is_not_stale_where_nobody_asked(tmp_path: Path) -> None:
    text = """
    [[expected]]
    check = "{check}"
    status = "fail"
    reason = "A reason."
    fault = "torch"
    link = "https://github.com/pytorch/pytorch/issues/1"
    """
    run = factories.run(factories.record("export/one"))
    for check, stale in (("onnx/gallery", False), ("{onnx/gallery,onnx/step}", False), ("export/two", True)):
        path = tmp_path / "baseline.toml"
        path.write_text(text.replace("{check}", check), encoding="utf-8")
        rows = load_baseline(path)
        verdicts = judge(run, rows)
        assert judge_table(table_of([run]), rows).unused == ()
        assert ("fixed" in [verdict.verdict for verdict in verdicts]) is stale
