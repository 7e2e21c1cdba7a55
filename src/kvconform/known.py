"""What was measured, in a few kilobytes that travel with the library: known failures, pairs, pins.

`data/known.json` is written by `python -m matrix report` from the published records, the baseline and
docs/known-failures; nobody edits it. `explain`, `pins` and `doctor` read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

__all__ = ["Failure", "Goal", "Known", "Pair", "Pins", "Says", "about", "load"]

SCHEMA = 1


@dataclass(frozen=True)
class Says:
    """Texts by which a message tells of a failure.

    Attributes:
        all: the message holds every one of them.
        unless: and none of these.
        perhaps: the condition under which it is this failure, where the texts alone do not prove it.
    """

    all: tuple[str, ...]
    unless: tuple[str, ...] = ()
    perhaps: str = ""


@dataclass(frozen=True)
class Failure:
    """One page of docs/known-failures.

    Attributes:
        page: the name of the page, `vmap-masks`.
        title: its first line.
        fault: torch or transformers.
        fix: what to do, in a sentence.
        code: lines to paste, or an empty text.
        first_bad: the first release that has it, "transformers 4.53", or an empty text.
        first_good: the first release after it that has not, or an empty text.
        seen: the pairs in which a measured check shows it, as a text.
        says: what messages say.
        instead: for some attributes that caches had or got, what to write in their place.
    """

    page: str
    title: str
    fault: str
    fix: str
    code: str
    first_bad: str
    first_good: str
    seen: str
    says: tuple[Says, ...]
    instead: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The failure without the texts that it is found by."""
        return {name: value for name, value in asdict(self).items() if name not in ("says", "instead")}


@dataclass(frozen=True)
class Pair:
    """One measured pair of releases: a sentence a subject, such as "yes, except exported models"."""

    torch: str
    transformers: str
    verdicts: Mapping[str, str]


@dataclass(frozen=True)
class Pins:
    """A pair that is good for a goal, and the versions that were installed when it was measured."""

    torch: str
    transformers: str
    packages: Mapping[str, str]

    def constraints(self) -> str:
        """The lines of a constraints file, for `pip install -c` and `uv pip install -c`."""
        return "".join(f"{name}=={version}\n" for name, version in self.packages.items())


@dataclass(frozen=True)
class Goal:
    """Something that people want to do, and the pins that were measured good for it (None: nothing was)."""

    name: str
    title: str
    rule: str
    pins: Pins | None


@dataclass(frozen=True)
class Known:
    """Everything in the file. `measured` are the first and the last day of measurement."""

    measured: tuple[str, str]
    failures: tuple[Failure, ...]
    pairs: tuple[Pair, ...]
    goals: tuple[Goal, ...]

    def pair(self, torch: str, transformers: str) -> Pair | None:
        """What was measured of two releases, "2.9" and "4.57"; None if nothing was."""
        return next((pair for pair in self.pairs if (pair.torch, pair.transformers) == (torch, transformers)), None)


def load(text: str | None = None) -> Known:
    """Read the summary that came with this library, or the one in a text."""
    if text is None:
        text = resources.files("kvconform").joinpath("data/known.json").read_text(encoding="utf-8")
    document = json.loads(text)
    return Known(
        measured=(document["measured"][0], document["measured"][1]),
        failures=tuple(_failure(row) for row in document["failures"]),
        pairs=tuple(_pair(key, verdicts) for key, verdicts in document["pairs"].items()),
        goals=tuple(_goal(row) for row in document["goals"]),
    )


def about(known: Known, torch: str | None, transformers: str | None) -> list[str]:
    """What was measured of two installed versions, a line a subject, and the pins of the newest pair that is good.

    Args:
        known: what was measured.
        torch: the installed version, "2.9.1+cu128", or None.
        transformers: the same of transformers.
    """
    newest = next((goal.pins for goal in known.goals if goal.name == "newest" and goal.pins), None)
    pins = []
    if newest is not None:
        pair_of = f"torch {newest.torch} with transformers {newest.transformers}"
        pins = [f"  newest pair measured good: {pair_of} (python -m kvconform pins)"]
    if torch is None or transformers is None:
        return pins
    pair = _minor(torch), _minor(transformers)
    found = known.pair(*pair)
    if found is None:
        return [f"nobody has measured torch {pair[0]} with transformers {pair[1]}", *pins]
    lines = [f"  {subject:22} {sentence}" for subject, sentence in found.verdicts.items()]
    return [f"measured before, torch {pair[0]} with transformers {pair[1]}:", *lines, *pins]


def _minor(version: str) -> str:
    return ".".join(version.split("+", maxsplit=1)[0].split(".")[:2])


def _failure(row: Mapping[str, Any]) -> Failure:
    says = tuple(Says(tuple(one["all"]), tuple(one.get("unless", ())), one.get("perhaps", "")) for one in row["says"])
    return Failure(**{**row, "says": says})


def _pair(key: str, verdicts: Mapping[str, str]) -> Pair:
    torch, _, transformers = key.partition("/")
    return Pair(torch, transformers, verdicts)


def _goal(row: Mapping[str, Any]) -> Goal:
    pins = Pins(**row["pins"]) if row["pins"] else None
    return Goal(row["name"], row["title"], row["rule"], pins)
