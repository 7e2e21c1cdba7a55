from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from matrix.classes import table
from matrix.classes.reading import ClassRead

RELEASES = ("1.0", "1.1", "1.2", "1.3")


@given(st.lists(st.one_of(st.none(), st.sets(st.sampled_from("abc"))), min_size=4, max_size=4))
def test_each_attribute_is_where_it_was_read(read: list[set[str] | None]) -> None:
    """None is a release without the class."""
    by_release = {
        release: {} if names is None else {"Cache": ClassRead(frozenset(names), {"update": frozenset(names)})}
        for release, names in zip(RELEASES, read, strict=True)
    }
    document = table.to_json(table.merge(by_release))
    there = [release for release, names in zip(RELEASES, read, strict=True) if names is not None]
    if not there:
        assert document["classes"] == {}
        return
    found = document["classes"]["Cache"]
    assert _releases(found["releases"]) == there
    for name in "abc":
        where = [release for release, names in zip(RELEASES, read, strict=True) if names and name in names]
        told = found["attributes"].get(name)
        assert told == found["parameters"].get(f"update({name})")
        assert (told is None) is (where in ([], there))
        assert told is None or _releases(told) == where


def _releases(text: str) -> list[str]:
    found = []
    for part in text.split(","):
        first, _, last = part.partition("..")
        found += RELEASES[RELEASES.index(first) : RELEASES.index(last or first) + 1]
    return found


def test_the_file_is_the_table() -> None:
    made = table.merge(
        {"1.0": {"Cache": ClassRead(frozenset({"a"}), {})}, "1.1": {"Cache": ClassRead(frozenset(), {})}}
    )
    told = json.loads(table.dumps(made))
    assert told == table.to_json(made)
    assert told["classes"]["Cache"] == {"releases": "1.0..1.1", "attributes": {"a": "1.0"}, "parameters": {}}
