from __future__ import annotations

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.selectors import braces, glob, on_axis, select
from matrix.errors import ExitCode, UserError

CELLS = [Cell("2.5", "4.53"), Cell("2.6", "4.48"), Cell("2.15", "5.23"), Cell("2.5.0", "4.53")]


@pytest.mark.parametrize(
    ("pattern", "patterns"),
    [
        ("a", ["a"]),
        ("a{b,c}d", ["abd", "acd"]),
        ("{a,b}{c,d}", ["ac", "ad", "bc", "bd"]),
        ("a{b,c{d,e}}", ["ab", "acd", "ace"]),
        ("{a{b,c}-*,d{e,f}-*}", ["ab-*", "ac-*", "de-*", "df-*"]),
        ("a{b}", ["ab"]),
    ],
)
def test_braces(pattern: str, patterns: list[str]) -> None:
    assert braces(pattern) == patterns


@pytest.mark.parametrize("pattern", ["torch2.{5", "torch2.5}", "}{", "{a{b}"])
def test_an_open_brace_is_an_error(pattern: str) -> None:
    with pytest.raises(UserError, match="braces"):
        braces(pattern)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("*", 4), ("torch2.5-*", 1), ("torch2.{5,6}-*", 2), ("*-tf4.*", 3), ("torch2.1", 0), ("torch2.1*", 1)],
)
def test_globs_match_whole_ids(pattern: str, count: int) -> None:
    assert sum(map(glob(pattern), CELLS)) == count


def test_a_range_takes_the_pinned_patches_of_its_minors(axes: Axes) -> None:
    assert list(map(on_axis("torch", "2.5", axes), CELLS)) == [True, False, False, True]


def test_nothing_selected_is_an_error_with_near_misses() -> None:
    with pytest.raises(UserError) as caught:
        select(CELLS, [glob("torch2.5-tf4.5-*")], asked="--select torch2.5-tf4.5-*")
    assert caught.value.exit_code == ExitCode.EMPTY
    assert "torch2.5-tf4.53-py3.11-cpu" in caught.value.message
