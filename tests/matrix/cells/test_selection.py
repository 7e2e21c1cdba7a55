from __future__ import annotations

import argparse

import pytest

from matrix.cells.axes import Axes
from matrix.cells.selection import add_selection_options, select
from matrix.errors import EmptySelectionError


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_selection_options(parser)
    return parser.parse_args(argv)


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        ((), 11 * 34),
        (("--tier", "smoke"), 6),
        (("--tier", "smoke", "--torch", "2.5..2.8"), 3),
        (("--torch", "2.5"), 34),
        (("--torch", "2.4", "--transformers", "4.44,4.45"), 2),
        (("--torch", "2.5.0", "--transformers", "4.53.1"), 1),
        (("--select", "torch2.{5,6}-tf4.53-*"), 2),
        (("--select", "torch2.5-tf4.53-*", "--select", "torch2.6-tf4.48-*"), 2),
        (("--torch", "nightly", "--transformers", "main"), 1),
    ],
)
def test_selections(axes: Axes, argv: tuple[str, ...], count: int) -> None:
    assert len(select(parse(*argv), axes)) == count


def test_a_tier_may_name_pythons_and_options_move_them(axes: Axes) -> None:
    found = parse("--tier", "python", "--torch", "2.15")
    assert [cell.python for cell in select(found, axes)] == ["3.12", "3.13", "3.14"]
    found.python, found.extra, found.device = "3.12", "optree", "cuda"
    assert {cell.id for cell in select(found, axes)} == {"torch2.15-tf5.23-py3.12+optree-cuda"}


def test_a_command_may_have_a_tier_of_its_own(axes: Axes) -> None:
    assert len(select(parse(), axes, tier="smoke")) == 6
    assert len(select(parse("--torch", "2.5"), axes, tier="smoke")) == 34


def test_an_empty_selection_is_an_error(axes: Axes) -> None:
    with pytest.raises(EmptySelectionError, match="near misses"):
        select(parse("--tier", "smoke", "--torch", "2.14"), axes)
