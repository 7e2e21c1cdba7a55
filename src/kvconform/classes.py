"""Errors of code that was written for the cache classes of another release.

`data/classes.json` tells in which releases each class, attribute and parameter is there. It is read from the sources of
the releases by `python -m matrix classes`; nobody edits it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

__all__ = ["PAGE", "Classes", "Missing", "load", "missing"]

PAGE = "cache-has-no-attribute"
"""The known failure that all of these are."""


@dataclass(frozen=True)
class Missing:
    """What a message misses.

    Attributes:
        what: `DynamicCache.get_max_length`, `DynamicCache.__init__(config)` or `SinkCache`.
        where: the releases that have it, "4.44 to 4.48 and 5.13 to 5.23".
        attribute: the attribute's own name; empty where a class or a parameter is missing.
        length: how many characters of the message tell it.
    """

    what: str
    where: str
    attribute: str
    length: int


@dataclass(frozen=True)
class Classes:
    """The file: classes by their names in small letters, since a message is compared without its capitals."""

    by_name: Mapping[str, tuple[str, Mapping[str, Any]]]
    first: str
    last: str


def load(text: str | None = None) -> Classes:
    """Read the table that came with this library, or the one in a text."""
    if text is None:
        text = resources.files("kvconform").joinpath("data/classes.json").read_text(encoding="utf-8")
    document = json.loads(text)
    by_name = {name.lower(): (name, one) for name, one in document["classes"].items()}
    return Classes(by_name, document["releases"][0], document["releases"][-1])


# The site's script has the same patterns in the same order. What is missing of which class: (pattern, kind, attribute).
_PATTERNS = (
    (re.compile(r"'([a-z_0-9]+)' object has no attribute '([a-z_0-9]+)'", re.ASCII), "attributes", ""),
    (re.compile(r"type object '([a-z_0-9]+)' has no attribute '([a-z_0-9]+)'", re.ASCII), "attributes", ""),
    (re.compile(r"'([a-z_0-9]+)' object is not subscriptable", re.ASCII), "attributes", "__getitem__"),
    (re.compile(r"'([a-z_0-9]+)' object is not iterable", re.ASCII), "attributes", "__iter__"),
    (re.compile(r"object of type '([a-z_0-9]+)' has no len\(\)", re.ASCII), "attributes", "__len__"),
    (
        re.compile(r"([a-z_0-9]+)\.([a-z_0-9]+)\(\) got an unexpected keyword argument '([a-z_0-9]+)'", re.ASCII),
        "parameters",
        "",
    ),
    (
        re.compile(
            r"([a-z_0-9]+)\.([a-z_0-9]+)\(\) missing # required positional arguments?: '([a-z_0-9]+)'", re.ASCII
        ),
        "parameters",
        "",
    ),
    (re.compile(r"cannot import name '([a-z_0-9]+)' from 'transformers", re.ASCII), "", ""),
    (re.compile(r"module 'transformers[a-z_.]*' has no attribute '([a-z_0-9]+)'", re.ASCII), "", ""),
)


def missing(text: str, classes: Classes) -> Missing | None:
    """The last thing that a message misses of a cache class which has it in another release.

    Args:
        text: the message, normalised (`kvconform.explain.normalise`).
        classes: the table (`load`).
    """
    found = list(_missing(text, classes))
    return max(found, key=lambda each: each[0])[1] if found else None


def _missing(text: str, classes: Classes) -> Iterator[tuple[int, Missing]]:
    """What each pattern finds, with the place where it ends."""
    for pattern, kind, operator in _PATTERNS:
        for match in pattern.finditer(text):
            name, one = classes.by_name.get(match[1], ("", {}))
            if not name:
                continue
            if not kind:
                always = one["releases"] == f"{classes.first}..{classes.last}"
                what, where, attribute = name, "" if always else one["releases"], ""
            else:
                asked = operator or (match[2] if kind == "attributes" else f"{match[2]}({match[3]})")
                key = next((each for each in one[kind] if each.lower() == asked), "")
                what, where, attribute = f"{name}.{key}", one[kind].get(key, ""), key if kind == "attributes" else ""
            if where:
                yield match.end(), Missing(what, _words(where), attribute, len(match[0]))


def _words(where: str) -> str:
    """Releases as people write them."""
    return " and ".join(part.replace("..", " to ") for part in where.split(","))
