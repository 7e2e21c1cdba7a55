from __future__ import annotations

import pytest

from matrix.cells.ranges import expand, nearest
from matrix.errors import UserError

KNOWN = ["2.8", "2.9", "2.10", "2.11"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2.9", ["2.9"]),
        ("2.9..2.11", ["2.9", "2.10", "2.11"]),
        ("..2.9", ["2.8", "2.9"]),
        ("2.10..", ["2.10", "2.11"]),
        ("2.11,2.8", ["2.8", "2.11"]),
        ("2.9,2.9..2.10", ["2.9", "2.10"]),
        ("2.9.1", ["2.9.1"]),
        ("nightly,2.8", ["2.8", "nightly"]),
    ],
)
def test_ranges(text: str, values: list[str]) -> None:
    assert expand("torch", text, KNOWN) == values


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2.99", "nearest: 2.9"),
        ("2.11..2.8", "backwards"),
        ("", "names no"),
        ("banana", "unknown"),
        ("main", "unknown"),
    ],
)
def test_bad_ranges_say_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        expand("torch", text, KNOWN)


def test_the_nearest_versions_are_neighbours_where_no_text_is_alike() -> None:
    assert nearest("77", ["2.8", "2.9", "2.10", "2.11"]) == ["2.9", "2.10", "2.11"]
    assert nearest("x", []) == []
