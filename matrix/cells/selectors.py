"""Selectors: small callables that say yes or no to a cell, and the error when all of them say no."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell, minor_of
from matrix.cells.ranges import expand
from matrix.errors import EmptySelectionError, UserError

Selector = Callable[[Cell], bool]


def braces(pattern: str) -> list[str]:
    """Expand `{a,b}` as a shell does: "torch2.{5,6}-*" gives two patterns; braces may nest.

    Raises:
        UserError: a brace is not closed.
    """
    first = pattern.find("{")
    if first < 0 and "}" not in pattern:
        return [pattern]
    # The outermost braces first: a choice that is not taken brings none of its own.
    depth, cuts = 0, [first]
    for at, letter in enumerate(pattern):
        depth += (letter == "{") - (letter == "}")
        if (depth == 1 and letter == ",") or (depth == 0 and letter == "}"):
            cuts.append(at)
        if depth < 0 or (depth == 0 and letter == "}"):
            break
    if depth:
        example = "python -m matrix plan --select 'torch2.{5,6}-*'"
        raise UserError(f"the braces of {pattern!r} do not match", example)
    head, tail = pattern[:first], pattern[cuts[-1] + 1 :]
    choices = [pattern[start + 1 : end] for start, end in pairwise(cuts)]
    return [text for choice in choices for text in braces(head + choice + tail)]


def glob(pattern: str) -> Selector:
    """Selects cells by id: `*`, `?`, `[ab]` and `{a,b}`."""
    patterns = braces(pattern)
    return lambda cell: any(fnmatch.fnmatchcase(cell.id, each) for each in patterns)


def on_axis(axis: str, text: str, axes: Axes) -> Selector:
    """Selects cells whose value on an axis is in a range such as "4.49..5.23"."""
    values = set(expand(axis, text, axes.known(axis)))
    return lambda cell: getattr(cell, axis) in values or minor_of(getattr(cell, axis)) in values


def select(cells: Iterable[Cell], selectors: Sequence[Selector], *, asked: str) -> list[Cell]:
    """The cells that every selector takes.

    Args:
        cells: what there is.
        selectors: all of them must agree.
        asked: the selection in the user's words, for the message.

    Raises:
        EmptySelectionError: nothing is left; the message shows ids that come near.
    """
    everything = list(cells)
    chosen = [cell for cell in everything if all(selector(cell) for selector in selectors)]
    if chosen:
        return chosen
    near = near_misses(asked, [cell.id for cell in everything])
    message = f"no cell matches {asked}; near misses: {', '.join(near) or 'none'}"
    raise EmptySelectionError(message, "python -m matrix plan")


def near_misses(asked: str, ids: Sequence[str]) -> list[str]:
    """Up to three ids that look like what was asked for, wildcards aside."""
    plain = re.sub(r"[*?\[\]{}]", "", asked.rpartition(" ")[2])
    starts = [item for item in ids if plain and item.startswith(plain.rstrip("-"))]
    return starts[:3] or difflib.get_close_matches(plain, ids, 3, cutoff=0.5) or list(ids[:3])
