from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.classes import table
from matrix.classes.changes import Change, changes
from matrix.classes.reading import ClassRead
from matrix.classes.table import PATH

RELEASES = ("1.0", "1.1", "1.2")
READ = st.dictionaries(st.sampled_from(["A", "B"]), st.sets(st.sampled_from(["x", "y", "_z"])))


def made(read: list[dict[str, set[str]]]) -> dict[str, Any]:
    by_release = {
        release: {name: ClassRead(frozenset(names), {}) for name, names in one.items()}
        for release, one in zip(RELEASES, read, strict=True)
    }
    return table.to_json(table.merge(by_release))


@given(st.lists(READ, min_size=3, max_size=3))
def test_what_a_release_took_and_gave_is_the_difference(read: list[dict[str, set[str]]]) -> None:
    document = made(read)
    assert changes(document, "1.0") is None
    for before, after, release in zip(read, read[1:], RELEASES[1:], strict=False):
        found = changes(document, release)
        assert found is not None
        for told, old, new in ((found.gone, before, after), (found.new, after, before)):
            assert {one.what for one in told if not one.classes} == set(old) - set(new)
            lost = {(what, name) for name in set(old) & set(new) for what in old[name] - new[name] if what != "_z"}
            assert {(one.what, name) for one in told for name in one.classes} == lost


@pytest.mark.parametrize(
    ("release", "gone", "new"),
    [("4.49", "get_max_length", "is_compileable"), ("4.56", "key_cache", "offload")],
)
def test_the_packaged_table_tells_what_people_were_hit_by(release: str, gone: str, new: str) -> None:
    found = changes(json.loads(PATH.read_text(encoding="utf-8")), release)
    assert found is not None
    assert gone in {one.what for one in found.gone}
    assert new in {one.what for one in found.new}


def test_an_unknown_release_has_no_changes() -> None:
    assert changes(made([{}, {}, {}]), "9.9") is None
    assert Change("x", ()).classes == ()
