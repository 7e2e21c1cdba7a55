"""What a release took from the cache classes, and what it gave them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """A class, an attribute or a parameter that came or went.

    Attributes:
        what: `SinkCache`, `get_max_length` or `crop(max_length)`.
        classes: the classes that lost or got it; empty where the class itself did.
    """

    what: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """What is gone, and what is new, against the release `before`."""

    before: str
    gone: tuple[Change, ...]
    new: tuple[Change, ...]


def changes(table: Mapping[str, Any], release: str) -> Changes | None:
    """What changed in a release.

    Attributes of a class that is new or gone are not told one by one, nor are names that begin with an underscore; what
    many classes inherit is told once.

    Args:
        table: the classes, as `matrix.classes.table.to_json` makes it.
        release: "4.49".

    Returns:
        The changes, or None where the table tells of no release before.
    """
    releases = list(table["releases"])
    at = releases.index(release) if release in releases else 0
    if not at:
        return None
    before = releases[at - 1]
    return Changes(before, _changed(table, before, release), _changed(table, release, before))


def _changed(table: Mapping[str, Any], there: str, not_here: str) -> tuple[Change, ...]:
    """What is in one release and not in the other, classes first."""
    order = {release: number for number, release in enumerate(table["releases"])}

    def holds(where: str, release: str) -> bool:
        spans = ((part.partition("..")[0], part.rpartition("..")[2]) for part in where.split(","))
        return any(order[first] <= order[release] <= order[last] for first, last in spans)

    def only(where: str) -> bool:
        return holds(where, there) and not holds(where, not_here)

    classes = [name for name, one in table["classes"].items() if only(one["releases"])]
    names: dict[str, list[str]] = {}
    for name, one in table["classes"].items():
        if holds(one["releases"], there) and holds(one["releases"], not_here):
            for what in _public(one):
                if only(one["attributes"].get(what) or one["parameters"][what]):
                    names.setdefault(what, []).append(name)
    return (
        *(Change(name, ()) for name in classes),
        *(Change(what, tuple(found)) for what, found in sorted(names.items())),
    )


def _public(one: Mapping[str, Any]) -> Iterator[str]:
    for what in (*one["attributes"], *one["parameters"]):
        if not what.startswith("_") or what == "__getitem__" or what.startswith("__init__("):
            yield what
