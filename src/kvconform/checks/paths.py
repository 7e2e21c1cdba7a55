"""The paths of leaves: each is named after what it is, and numbered as its layer is."""

from __future__ import annotations

import itertools
import re
from typing import Any

from kvconform.checks.errors import expect
from kvconform.checks.observe import is_state, observe

_NUMBER = re.compile(r"\d+")


def expect_counted_paths(cache: Any, leaves: list[Any], paths: list[str], where: str) -> None:
    """Prove that the paths of keys and values say so, and that their last number grows from layer to layer.

    Whoever writes dynamic shapes by name means the leaf of that name: layer 10 comes after layer 9. Paths without
    words or numbers say nothing wrong.
    """
    __tracebackhide__ = True
    places = {id(atom): path for path, atom in observe(cache).items() if is_state(atom)}
    attributes = {_attribute_of(place) for place in places.values()}
    found: dict[str, list[tuple[int, int, str]]] = {}
    for leaf, path in zip(leaves, paths, strict=True):
        place = places.get(id(leaf), "")
        _expect_named_alike(place, path, where)
        _expect_not_named_after(attributes - {_attribute_of(place)}, place, path, where)
        layers, told = _NUMBER.findall(place), _NUMBER.findall(path)
        if len(layers) == 1 and told:
            found.setdefault(_NUMBER.sub("#", place), []).append((int(layers[0]), int(told[-1]), path))
    for kind, held in found.items():
        for (_, before, first), (_, after, second) in itertools.pairwise(sorted(held)):
            expect(before < after, f"{second!r} follows {first!r}, expected a larger number [paths of {kind}]", where)


def _expect_named_alike(place: str, path: str, where: str) -> None:
    __tracebackhide__ = True
    for word, another in (("key", "value"), ("value", "key")):
        if word in place and another not in place:
            expect(word in path or another not in path, f"{place} is called {path!r}", where)


_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(?=[^A-Za-z]*$)")


def _attribute_of(place: str) -> str:
    """The last name in a place: of `.layers[0].conv_states[1]` it is `conv_states`."""
    found = _ATTRIBUTE.search(place)
    return found[0] if found else ""


def _expect_not_named_after(others: set[str], place: str, path: str, where: str) -> None:
    """Prove that a path does not have the name of another attribute, which holds other tensors of the cache."""
    __tracebackhide__ = True
    own = _attribute_of(place)
    named = [other for other in others if other and other in path and own not in path and own not in other]
    expect(not named, f"{place} is called {path!r}, after {', '.join(named)}", where)
