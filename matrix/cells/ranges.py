"""Ranges over an axis: "4.48..5.23", "2.5,2.9", "2.13", "main"."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from matrix.cells.cell import MOVING, is_axis_value, minor_of, version_key
from matrix.errors import UserError


def nearest(value: str, known: Sequence[str], count: int = 3) -> list[str]:
    """The known values that a mistyped one may have meant: alike as text, else next to it as versions."""
    alike = difflib.get_close_matches(value, known, count, cutoff=0.6)
    if alike or not known:
        return alike
    try:
        place = version_key(value)
    except ValueError:
        return list(known[-count:])
    ordered = sorted((item for item in known if item not in MOVING.values()), key=version_key)
    below = sum(version_key(item) < place for item in ordered)
    start = max(0, min(below - count // 2, len(ordered) - count))
    return ordered[start : start + count]


def check_value(axis: str, value: str, known: Sequence[str]) -> str:
    """Return the value if the axis knows its minor.

    Raises:
        UserError: it does not; the message names the nearest values.
    """
    if is_axis_value(axis, value) and minor_of(value) in {*known, MOVING.get(axis)}:
        return value
    near = ", ".join(nearest(value, known)) or "none"
    message = f"unknown {axis} version {value!r}; nearest: {near} (known: {known[0]} to {known[-1]}, {MOVING[axis]})"
    raise UserError(message, "python -m matrix plan")


def expand(axis: str, text: str, known: Sequence[str]) -> list[str]:
    """The axis values a range names, ordered as versions.

    Args:
        axis: "torch" or "transformers", for the message.
        text: comma-separated values and `A..B` ranges, both ends included.
        known: the minors of the axis, ordered.

    Raises:
        UserError: a value the axis does not know, or a range that runs backwards.
    """
    values: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        values += _between(axis, part, known) if ".." in part else [check_value(axis, part, known)]
    if not values:
        raise UserError(f"{text!r} names no {axis} version", "python -m matrix plan")
    return sorted(dict.fromkeys(values), key=version_key)


def _between(axis: str, text: str, known: Sequence[str]) -> list[str]:
    first, _, last = text.partition("..")
    low, _ = version_key(check_value(axis, first or known[0], known))
    high, _ = version_key(check_value(axis, last or known[-1], known))
    if low > high:
        raise UserError(f"the {axis} range {text!r} runs backwards", f"--{axis} {last}..{first}")
    return [value for value in known if low <= version_key(value)[0] <= high]
