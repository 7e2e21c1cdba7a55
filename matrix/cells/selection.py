"""The options that select cells, and the cells that they select."""

from __future__ import annotations

import argparse
from dataclasses import replace

from matrix.cells import selectors
from matrix.cells.axes import Axes
from matrix.cells.cell import DEVICES, Cell
from matrix.cells.ranges import expand


def add_selection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select cells; `plan`, `run` and `checks` share them."""
    parser.add_argument("--tier", metavar="NAME", help="smoke, core, full, upstream, python, optree or patch")
    parser.add_argument(
        "--select", action="append", default=[], metavar="GLOB", help="such as 'torch2.{5,6}-*'; may repeat"
    )
    parser.add_argument("--torch", metavar="RANGE", help="such as 2.9, 2.5..2.8 or 2.5,2.15")
    parser.add_argument("--transformers", metavar="RANGE", help="such as 4.53 or 4.49..5.23")


def add_next_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that narrows the selected cells to those that are due; `plan` and `run` share it."""
    parser.add_argument(
        "--next",
        type=_at_least_one,
        metavar="N",
        help="of these, the N to measure next: what changed most first, then what was asked longest ago",
    )


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no number of cells: give 1 or more")
    return int(text)


def select(found: argparse.Namespace, axes: Axes, *, tier: str | None = None) -> list[Cell]:
    """The cells that parsed options select.

    Args:
        found: the options of `add_selection_options`, and perhaps `python` and `device`.
        axes: what there is.
        tier: the tier where the options name neither a tier nor anything else; None is the default axes.

    Raises:
        UserError: a version or tier is unknown.
        EmptySelectionError: nothing is selected.
    """
    narrowed = found.select or found.torch or found.transformers
    name = found.tier or (None if narrowed else tier)
    cells = axes.tier(name) if name else _everything(found, axes)
    cells = [replace(cell, **_elsewhere(found)) for cell in cells]
    chosen: list[selectors.Selector] = []
    if found.select:
        globs = [selectors.glob(pattern) for pattern in found.select]
        chosen.append(lambda cell: any(selector(cell) for selector in globs))
    chosen += [selectors.on_axis(axis, text, axes) for axis, text in _ranges(found)]
    return selectors.select(cells, chosen, asked=_asked(found))


def _everything(found: argparse.Namespace, axes: Axes) -> list[Cell]:
    """The default axes; a range or a pinned version may name releases that are off them."""
    torches = expand("torch", found.torch, axes.known("torch")) if found.torch else axes.defaults["torch"]
    transformers = (
        expand("transformers", found.transformers, axes.known("transformers"))
        if found.transformers
        else axes.defaults["transformers"]
    )
    return [Cell(t, f, axes.python) for t in torches for f in transformers]


def _elsewhere(found: argparse.Namespace) -> dict[str, str]:
    moved = {}
    if getattr(found, "python", None):
        moved["python"] = found.python
    if getattr(found, "extra", None):
        moved["extra"] = found.extra
    if getattr(found, "device", None) in DEVICES:
        moved["device"] = found.device
    return moved


def _ranges(found: argparse.Namespace) -> list[tuple[str, str]]:
    return [(axis, getattr(found, axis)) for axis in ("torch", "transformers") if getattr(found, axis)]


def _asked(found: argparse.Namespace) -> str:
    parts = [f"--tier {found.tier}"] if found.tier else []
    parts += [f"--{axis} {text}" for axis, text in _ranges(found)]
    return " ".join([*parts, *(f"--select {pattern}" for pattern in found.select)])
