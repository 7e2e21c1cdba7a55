"""The order of a run: nothing is lost, what shares a program stays together, and what takes long comes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvconform_conformance.runner.order import LONG, arrange, key

CHECKS = st.tuples(
    st.sampled_from(["kvconform", "native"]),
    st.sampled_from(
        ["model/a", "recipe/b[once]", "export/c", "dynamic-shape/d", "archive/e", "round-trip/f", "kvcache/g"]
    ),
    st.sampled_from(["", "one", "two"]),
)


def is_long(item):
    return item[1].startswith(LONG)


@given(st.lists(CHECKS, unique=True, max_size=40), st.integers(1, 5))
def test_each_item_once_and_what_shares_a_program_together(items, workers):
    order = arrange(items, workers, lambda item: item)
    assert sorted(order) == sorted(items)
    for group in {key(*item) for item in items}:
        places = [place for place, item in enumerate(order) if key(*item) == group]
        assert places == list(range(places[0], places[0] + len(places)))


@given(st.lists(CHECKS, unique=True, max_size=40), st.integers(1, 5))
def test_every_share_begins_with_what_takes_long(items, workers):
    order = [is_long(item) for item in arrange(items, workers, lambda item: item)]
    begins = sum(long and not before for before, long in zip([False, *order], order, strict=False))
    assert begins <= workers


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_shares_are_equal_where_short_checks_can_fill_them(count):
    items = [("s", f"model/{index}", "") for index in range(count)]
    items += [("s", f"round-trip/{index}", "") for index in range(200 - count)]
    order = arrange(items, 2, lambda item: item)
    halves = [sum(map(is_long, half)) for half in (order[:100], order[100:])]
    assert abs(halves[0] - halves[1]) <= 1
