"""src/kvconform/data/classes.json: in which releases each class, attribute and parameter is there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matrix.classes.reading import ClassRead
from matrix.paths import ROOT

PATH = ROOT / "src" / "kvconform" / "data" / "classes.json"
SCHEMA = 1

Spans = tuple[tuple[str, str], ...]
"""Runs of releases, each with its first and its last: (("4.44", "4.48"), ("5.0", "5.23"))."""


@dataclass(frozen=True)
class ClassTable:
    """One class through the releases.

    Attributes:
        releases: where it is.
        attributes: where each attribute is that it has in some of these releases and not in others.
        parameters: where each parameter of its own methods is, `update(cache_kwargs)`, for those that come or go while
            the method stays.
    """

    releases: Spans
    attributes: Mapping[str, Spans]
    parameters: Mapping[str, Spans]


@dataclass(frozen=True)
class Table:
    """All classes. `releases` are the releases that were read, in order."""

    releases: tuple[str, ...]
    classes: Mapping[str, ClassTable]


def merge(read: Mapping[str, Mapping[str, ClassRead]]) -> Table:
    """Put the classes of several releases together.

    Args:
        read: for each release, in order, its classes.
    """
    releases = list(read)
    names = sorted({name for classes in read.values() for name in classes})
    return Table(tuple(releases), {name: _merged(name, read, releases) for name in names})


def _merged(name: str, read: Mapping[str, Mapping[str, ClassRead]], releases: Sequence[str]) -> ClassTable:
    there = {release: read[release][name] for release in releases if name in read[release]}
    attributes = {
        attribute: {release for release, one in there.items() if attribute in one.attributes}
        for attribute in sorted({each for one in there.values() for each in one.attributes})
    }
    parameters: dict[str, Spans] = {}
    for method in sorted({each for one in there.values() for each in one.parameters}):
        taking = {release: one.parameters[method] for release, one in there.items() if method in one.parameters}
        for parameter in sorted(frozenset().union(*taking.values())):
            holding = {release for release, all_of in taking.items() if parameter in all_of}
            if holding != set(taking):
                parameters[f"{method}({parameter})"] = _spans(holding, releases)
    changing = {each: _spans(where, releases) for each, where in attributes.items() if where != set(there)}
    return ClassTable(_spans(there, releases), changing, parameters)


def _spans(where: Collection[str], releases: Sequence[str]) -> Spans:
    runs = itertools.groupby(releases, key=lambda release: release in where)
    spans = [list(run) for inside, run in runs if inside]
    return tuple((span[0], span[-1]) for span in spans)


def dumps(table: Table) -> str:
    """The file's text, a line an attribute, so that a difference of two can be read."""
    return json.dumps(to_json(table), indent=1) + "\n"


def to_json(table: Table) -> dict[str, Any]:
    """The table as the file has it: runs of releases are texts such as "4.44..4.48,5.13..5.23"."""

    def texts(spans: Mapping[str, Spans]) -> dict[str, str]:
        return {name: _text(each) for name, each in spans.items()}

    classes = {
        name: {
            "releases": _text(one.releases),
            "attributes": texts(one.attributes),
            "parameters": texts(one.parameters),
        }
        for name, one in table.classes.items()
    }
    return {"schema": SCHEMA, "releases": list(table.releases), "classes": classes}


def _text(spans: Spans) -> str:
    return ",".join(first if first == last else f"{first}..{last}" for first, last in spans)
