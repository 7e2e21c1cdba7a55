from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from matrix.cells import axes as axes_module
from matrix.cells.axes import CELLS_TOML, Axes
from matrix.cells.cell import Cell
from matrix.errors import ExitCode, UserError

TEXT = CELLS_TOML.read_text(encoding="utf-8")
DOCS = Path(__file__).parents[3] / "docs" / "matrix.md"


def canonical(text: str) -> str:
    """The text without comments and layout: what is left must survive loading and dumping."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return re.sub(r",? ?([\]}])", r"\1", re.sub(r"([\[{]) ", r"\1", re.sub(r"\s+", " ", "\n".join(lines))))


def test_loading_and_dumping_gives_the_same_file(axes: Axes) -> None:
    assert tomllib.loads(axes_module.dumps(axes)) == tomllib.loads(TEXT)
    assert canonical(axes_module.dumps(axes)) == canonical(TEXT)
    assert axes_module.loads(axes_module.dumps(axes)) == axes


def test_each_release_and_tier_row_is_documented(axes: Axes) -> None:
    text = DOCS.read_text(encoding="utf-8")
    for axis in ("torch", "transformers"):
        for minor, release in getattr(axes, axis).items():
            assert re.search(rf"^\| {re.escape(minor)} \| {re.escape(release.newest)} \|", text, re.MULTILINE), minor
    for name, rows in axes.tiers.items():
        for row in rows:
            assert f"| {name} | {row.torch} | {row.transformers} | {row.why} |" in text
    for name in ("smoke has", "core", "full"):
        assert f"{name} {len(axes.tier(name.split()[0]))} " in text


def test_the_default_axes_are_the_promised_ones(axes: Axes) -> None:
    assert axes.defaults["torch"] == tuple(f"2.{minor}" for minor in range(5, 16))
    assert axes.defaults["transformers"][0] == "4.48"
    assert axes.defaults["transformers"][-1] == "5.23"
    assert axes.known("torch")[0] == "2.4"
    assert len(axes.known("transformers")) == 38


def test_tiers_hold_the_smaller_ones(axes: Axes) -> None:
    smoke, core, full = (set(axes.tier(name)) for name in ("smoke", "core", "full"))
    assert smoke < core < full
    pairs = {(cell.torch, cell.transformers) for cell in smoke}
    assert pairs >= {
        ("2.5", "4.53"),
        ("2.6", "4.48"),
        ("2.8", "4.55"),
        ("2.9", "4.57"),
        ("2.13", "5.5"),
        ("2.15", "5.23"),
    }


def test_the_core_tier_has_each_transformers_with_the_newest_torch_and_one_of_its_time(axes: Axes) -> None:
    core = axes.tier("core")
    for minor in axes.defaults["transformers"]:
        torches = {cell.torch for cell in core if cell.transformers == minor}
        assert "2.15" in torches
        born = axes.transformers[minor].released
        assert min(abs((axes.torch[value].released - born).days) for value in torches) <= 100, minor
    for torch in axes.defaults["torch"]:
        assert sum(cell.torch == torch for cell in core) >= 2


def test_small_tiers_vary_what_a_pair_stands_on(axes: Axes) -> None:
    pythons = {(cell.torch, cell.transformers, cell.python) for cell in axes.tier("python")}
    assert pythons == {("2.14", "5.20", "3.10"), *(("2.15", "5.23", f"3.{minor}") for minor in (12, 13, 14))}
    assert [cell.id for cell in axes.tier("optree")] == [
        "torch2.5-tf4.53-py3.11+optree-cpu",
        "torch2.15-tf5.23-py3.11+optree-cpu",
    ]
    assert [cell.transformers for cell in axes.tier("patch")] == ["4.56.0"]
    every = [cell for name in ("python", "optree", "patch") for cell in axes.tier(name)]
    assert [why for cell in every if (why := axes.why_not(cell))] == []
    # They are no cells of the pairs' own tiers, and no tags of their sessions.
    assert not {cell.id for cell in every} & {cell.id for cell in axes.tier("full")}


def test_every_cell_of_smoke_and_core_can_be_made(axes: Axes) -> None:
    assert [axes.why_not(cell) for cell in [*axes.tier("smoke"), *axes.tier("core")] if axes.why_not(cell)] == []


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (Cell("2.5", "5.23"), "transformers 5.23 needs torch >=2.6"),
        (Cell("2.5", "5.19"), None),
        (Cell("2.4", "5.19"), "transformers 5.19 needs torch >=2.5"),
        (Cell("2.6.0", "5.23.0"), None),
        (Cell("2.15", "4.53", "3.10"), "torch 2.15 needs Python >=3.11"),
        (Cell("2.9", "5.21", "3.10"), "transformers 5.21 needs Python >=3.11"),
        (Cell("2.5", "4.53", "3.14"), "torch 2.5 has wheels for Python 3.9 to 3.13 only"),
        (Cell("nightly", "main", "3.14"), None),
        (Cell("2.4", "main"), None),
    ],
)
def test_why_not(axes: Axes, cell: Cell, why: str | None) -> None:
    assert axes.why_not(cell) == why


def test_known_unresolvable_pairs_tell_their_reason() -> None:
    row = '{ torch = ">=2.14", transformers = "<4.50", python = ">=3.11", reason = "because" }'
    found = axes_module.loads(TEXT.replace("rows = []", f"rows = [{row}]"))
    assert found.why_not(Cell("2.15", "4.49")) == "because"
    assert found.why_not(Cell("2.15", "4.50")) is None
    assert found.why_not(Cell("2.13", "4.49")) is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("schema = 1", "schema = 2", "schema is 2"),
        ('python = "3.11"\n', "python = 3.11\n", "python of the top is 3.11, expected a str"),
        ('torch = ["2.5", ', "torch = [2.5, ", "axes.torch must be a list of strings"),
        ('torch = ["2.5", ', 'torch = ["2.3", "2.5", ', "axes.torch names '2.3'"),
        ('newest = "2.5.1"', "newest = 2.5", "torch.2.5.newest is 2.5, expected a str"),
        ('newest = "2.5.1", ', "", "torch.2.5: missing"),
        ('newest = "2.5.1"', 'newst = "2.5.1"', "unknown key 'newst'"),
        ('torch = ">=2.6", note', 'torch = "about 2.6", note', "Invalid specifier"),
        (
            '{ torch = "2.5", transformers = "4.53"',
            '{ torch = "2.5", transformers = "4.99"',
            "tiers.smoke[0]: unknown transformers",
        ),
        ('why = "the newest of both", extra = "optree"', 'why = "", extra = "optre"', "unknown extra 'optre'"),
        ("[tiers]", "[tiers", "is no TOML"),
    ],
)
def test_a_malformed_file_is_one_clear_error(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "cells.toml"
    assert old in TEXT
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        axes_module.load(path)
    assert told in caught.value.message
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.next_command


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        axes_module.load(tmp_path / "cells.toml")
