"""The grammar of contexts: what is written is read as the same, and the published table is the grammar."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as py_pytree

from kvconform import context, flatten
from kvconform.checks.caches import EXAMPLES
from kvconform.errors import CacheStructureError

# Whether a release lacks an example is the question of the suite, which counts it; here the others are asked.
OF_THIS_RELEASE = [example for example in EXAMPLES if all(need.met() for need in example.needs)]
DOC = Path(__file__).parents[2] / "docs" / "context.md"

NAMES = st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
LETTERS = st.from_regex(r"[A-Z]{1,3}", fullmatch=True)
NUMBERS = st.none() | st.integers(0, 10**6)
INDICES = st.integers(0, 200)
ANY = st.none() | INDICES
UNUSUAL = ("key_cache", "buffers", "lists", "past")
ATTRIBUTES = NAMES.filter(lambda name: name not in UNUSUAL)
ENTRIES = st.one_of(
    st.builds(context.LayerLeaf, PATHS, LETTERS, NUMBERS, INDICES),
    st.builds(context.EmptyLayer, LETTERS, NUMBERS, INDICES),
    st.builds(context.CacheLeaf, PATHS),
    st.builds(context.Fact, ANY, ATTRIBUTES, st.text()),
    st.builds(context.Follows, ANY, ATTRIBUTES),
    st.builds(context.Absent, ANY, NAMES),
    st.builds(context.Past, INDICES),
    st.builds(context.PastLayers, st.lists(INDICES, min_size=1, max_size=4).map(tuple)),
    st.builds(context.Present, st.sampled_from(["key_cache", "buffers"])),
    st.just(context.Lists()),
)


@given(ENTRIES)
def test_an_entry_that_is_written_is_read_as_the_same(entry):
    assert context.parse(entry.write()) == entry


@given(st.text())
def test_a_text_that_is_read_is_written_as_the_same(text):
    try:
        entry = context.parse(text)
    except CacheStructureError:
        return
    assert context.parse(entry.write()) == entry


def contexts_in(tree):
    """The contexts of a cache and of the caches in it."""
    if py_pytree.SUPPORTED_NODES.get(type(tree)) is None or isinstance(tree, (list, tuple, dict)):
        return
    children, found = flatten.flatten_cache(tree)
    yield found
    for child in children:
        yield from contexts_in(child)


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("example", OF_THIS_RELEASE, ids=lambda example: example.name)
def test_every_entry_of_every_example_is_read_and_written_as_the_same(example):
    try:
        cache = example.build()
    except IndexError:
        pytest.skip("4.44 skips no layers")
    found = [text for one in contexts_in(cache) for text in one]
    assert found or example.length == 0
    assert [context.parse(text).write() for text in found] == found
    assert all(context.names_a_leaf(text) == isinstance(context.parse(text), LEAVES) for text in found)


LEAVES = (context.LayerLeaf, context.CacheLeaf)


@pytest.mark.parametrize("kind", context.ENTRIES, ids=lambda kind: kind.__name__)
def test_the_example_of_an_entry_is_of_its_kind(kind):
    entry = context.parse(kind.example)
    assert type(entry) is kind
    assert entry.write() == kind.example


@pytest.mark.parametrize("text", ["#", "#!", "#1.", "#-", "#1.-", "#=3", "# name"])
def test_what_is_no_entry_is_refused(text):
    with pytest.raises(CacheStructureError, match="no entry of a cache's context"):
        context.parse(text)


def test_the_published_table_is_the_grammar():
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted((kind.__name__, kind.example) for kind in context.ENTRIES)
