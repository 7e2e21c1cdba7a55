"""Results as pictures: the figure of the README, and badges."""

from __future__ import annotations

import json

from matrix.judge.baseline import OURS
from matrix.render import wording
from matrix.render.grid import Results
from matrix.render.templating import environment

BOX_X, GAP, LINE, LEFT, TOP = 116, 4, 20, 124, 60
COLOURS = {"good": "#14532d", "known": "#664400", "bad": "#8c1a1a", "open": "#595954", "none": "#595954"}
"""White text on each has a contrast of at least 6 to 1."""
CHARACTER = 6
"""The width of a character of a badge, roughly: textLength makes the text fit."""


def figure(results: Results) -> str:
    """The fullest grid as an SVG that is readable on light and on dark pages."""
    grid = results.grids[0]
    names = [wording.subject_name(subject) for subject in results.subjects]
    captions = [f"Line by line: {', '.join(names)}. {wording.measured(results)}."] if len(names) > 1 else []
    captions.append(
        "✓ every check passes, ≈ some fail for known reasons, ✗ or ! some fail, ⊘ no install, · never measured"
    )
    step_y = LINE * len(results.subjects) + GAP
    return (
        environment()
        .get_template("figure.svg")
        .render(
            results=results,
            grid=grid,
            captions=captions,
            description=_description(results),
            width=max(LEFT + len(grid.torches) * (BOX_X + GAP) + 16, 640),
            height=TOP + len(grid.transformers) * step_y + 18 * len(captions) + 20,
            left=LEFT,
            top=TOP,
            step_x=BOX_X + GAP,
            step_y=step_y,
            box_x=BOX_X,
            line=LINE,
        )
    )


def badges(results: Results) -> dict[str, str]:
    """The files of badges by name: a shields.io endpoint (JSON) and an image (SVG), overall and for each cell."""
    files: dict[str, str] = {}
    states = results.states(OURS)
    passing = states.get("pass", 0)
    # Green only where it is true of every cell: a share would average failures away.
    tone = "good" if results.places and passing == len(results.places) else _worst_tone(results)
    files |= badge("kvconform", "torch x transformers", f"{passing} of {len(results.places)} cells pass", tone)
    for place in results.places:
        label = f"torch {place.cell.torch} · transformers {place.cell.transformers}"
        files |= badge(place.cell.id, label, wording.short(place, OURS), wording.MARKS[place.state(OURS)].tone)
    return files


def _worst_tone(results: Results) -> str:
    tones = [wording.MARKS[state].tone for state in results.states(OURS)]
    return next((tone for tone in ("bad", "open", "known") if tone in tones), "none")


def badge(name: str, label: str, message: str, tone: str) -> dict[str, str]:
    """The two files of a badge, by name."""
    colour = COLOURS[tone]
    endpoint = {"schemaVersion": 1, "label": label, "message": message, "color": colour.removeprefix("#")}
    image = (
        environment()
        .get_template("badge.svg")
        .render(
            label=label,
            message=message,
            colour=colour,
            left=len(label) * CHARACTER + 12,
            right=len(message) * CHARACTER + 12,
        )
    )
    return {f"{name}.json": json.dumps(endpoint, ensure_ascii=False, sort_keys=True) + "\n", f"{name}.svg": image}


def _description(results: Results) -> str:
    """The whole figure for those who hear it."""
    parts = [f"{wording.subject_name(name)}, {wording.headline(results, name)}" for name in results.subjects]
    for place in results.grids[0]:
        said = "; ".join(f"{wording.subject_name(name)} {wording.sentence(place, name)}" for name in results.subjects)
        parts.append(f"torch {place.cell.torch} and transformers {place.cell.transformers}: {said}")
    return ". ".join(parts) + "."
