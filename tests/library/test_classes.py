"""Errors of code that was written for the cache classes of another release."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvconform import classes, explain, known, probes

TABLE = {
    "releases": ["1.0", "1.1", "2.0"],
    "classes": {
        "DynamicCache": {
            "releases": "1.0..2.0",
            "attributes": {"Old": "1.0..1.1", "__getitem__": "1.0", "back": "1.0,2.0"},
            "parameters": {"update(extra)": "1.1..2.0"},
        },
        "SinkCache": {"releases": "1.0", "attributes": {}, "parameters": {}},
    },
}


@pytest.fixture
def table() -> classes.Classes:
    return classes.load(json.dumps(TABLE))


@pytest.mark.parametrize(
    ("message", "what", "where"),
    [
        ("AttributeError: 'DynamicCache' object has no attribute 'Old'", "DynamicCache.Old", "1.0 to 1.1"),
        ("AttributeError: type object 'DynamicCache' has no attribute 'back'", "DynamicCache.back", "1.0 and 2.0"),
        ("TypeError: 'DynamicCache' object is not subscriptable", "DynamicCache.__getitem__", "1.0"),
        (
            "DynamicCache.update() got an unexpected keyword argument 'extra'",
            "DynamicCache.update(extra)",
            "1.1 to 2.0",
        ),
        (
            "DynamicCache.update() missing 1 required positional argument: 'extra'",
            "DynamicCache.update(extra)",
            "1.1 to",
        ),
        ("cannot import name 'SinkCache' from 'transformers.cache_utils' (/a/b.py)", "SinkCache", "1.0"),
        ("module 'transformers' has no attribute 'SinkCache'", "SinkCache", "1.0"),
        (
            "x 'SinkCache' object is not iterable; 'DynamicCache' object has no attribute `old`",
            "DynamicCache.Old",
            "1.0",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_releases(
    message: str, what: str, where: str, table: classes.Classes
) -> None:
    found = classes.missing(explain.normalise(message), table)
    assert found is not None
    assert found.what == what
    assert found.where.startswith(where)


@pytest.mark.parametrize(
    "message",
    [
        "'DynamicCache' object has no attribute 'float'",
        "'MyCache' object has no attribute 'Old'",
        "cannot import name 'DynamicCache' from 'transformers'",
        "cannot import name 'SinkCache' from 'elsewhere'",
        "DynamicCache.crop() got an unexpected keyword argument 'extra'",
        "object of type 'DynamicCache' has no len()",
    ],
)
def test_what_no_release_has_or_every_one_is_not_explained(message: str, table: classes.Classes) -> None:
    assert classes.missing(explain.normalise(message), table) is None


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    classes.missing(text, classes.load(json.dumps(TABLE)))


def test_the_answer_says_what_to_write_instead() -> None:
    packaged = known.load()
    answer = explain.explain("'DynamicCache' object has no attribute 'key_cache'", packaged)
    assert answer.failure is not None
    assert answer.failure.page == classes.PAGE
    assert answer.detail.startswith("DynamicCache.key_cache is in transformers 4.44 to 4.55. Instead: ")
    assert answer.to_json()["detail"] == answer.detail


def test_another_failure_with_more_of_the_text_wins() -> None:
    packaged = known.load()
    text = "'DynamicCache' object has no attribute 'key_cache'\n" + "\n".join(packaged.failures[0].says[0].all)
    text += " Unsupported input type <class 'transformers.cache_utils.StaticCache'> " * 2
    answer = explain.explain(text, packaged)
    assert answer.failure is not None
    assert (answer.failure.page == classes.PAGE) is bool(answer.detail)


def _made() -> list[Any]:
    found = []
    for name in ("DynamicCache", "DynamicLayer", "EncoderDecoderCache"):
        cls = probes.cache_class(name)
        if cls is not None:
            inner = probes.cache_class("DynamicCache")
            assert inner is not None
            found.append(cls(inner(), inner()) if name == "EncoderDecoderCache" else cls())
    return found


def test_the_packaged_table_is_true_of_the_release_that_is_installed() -> None:
    table, release = classes.load(), probes.release().split()[-1]
    minor = ".".join(release.split(".")[:2])
    releases = json.loads(_text())["releases"]
    if minor not in releases:
        pytest.skip(f"the table does not tell of transformers {release}")
    for cache in _made():
        _, told = table.by_name[type(cache).__name__.lower()]
        for attribute, where in told["attributes"].items():
            # A property of an empty cache may raise, so it is not asked.
            has = hasattr(type(cache), attribute) or attribute in vars(cache)
            assert has is _holds(where, releases.index(minor), releases), attribute


def _text() -> str:
    from importlib import resources

    return resources.files("kvconform").joinpath("data/classes.json").read_text(encoding="utf-8")


def _holds(where: str, at: int, releases: list[str]) -> bool:
    spans = [(part.partition("..")[0], part.rpartition("..")[2]) for part in where.split(",")]
    return any(releases.index(first) <= at <= releases.index(last) for first, last in spans)


def test_the_imported_modules_are_those_of_now():
    def names():
        return [module.__name__ for module in probes.imported(("kvconform_own_",))]

    assert names() == []
    sys.modules["kvconform_own_a"] = types.ModuleType("kvconform_own_a")
    try:
        assert names() == ["kvconform_own_a"]
        sys.modules["kvconform_own_b"] = sys.modules.pop("kvconform_own_a")
        sys.modules["kvconform_own_b"].__name__ = "kvconform_own_b"
        assert names() == ["kvconform_own_b"]
        sys.modules["kvconform_own_b"] = types.ModuleType("kvconform_own_c")
        assert names() == ["kvconform_own_c"]
    finally:
        del sys.modules["kvconform_own_b"]
    assert names() == []
