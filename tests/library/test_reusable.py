"""A context is entered as often as is wished: again, inside itself, by threads, as a decorator."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvconform.reusable import reusable


class PlantedError(Exception):
    pass


def counting():
    """A context that gives a number of its own, and what was entered and left."""
    log = []

    @reusable
    def entered(start=0, *, step=1):
        number = start + step * len([word for word, _ in log if word == "in"])
        log.append(("in", number))
        try:
            yield number
        finally:
            log.append(("out", number))

    return entered, log


@given(st.lists(st.booleans(), max_size=8), st.booleans())
def test_nested_contexts_end_in_the_opposite_order(again, fails):
    made, log = counting()
    context, values = made(5, step=2), []

    def enter(rest):
        with context as value:
            values.append(value)
            if rest:
                enter(rest[1:])
                if rest[0]:
                    enter([])
            elif fails:
                raise PlantedError

    if fails:
        with pytest.raises(PlantedError):
            enter(again)
    else:
        enter(again)
    assert values == [5 + 2 * at for at in range(len(values))]
    held = []
    for word, number in log:
        if word == "in":
            held.append(number)
        else:
            assert held.pop() == number
    assert held == []


def test_threads_end_what_they_entered():
    made, log = counting()
    context, barrier = made(), threading.Barrier(4)

    def work(_):
        with context as outer, context as inner:
            barrier.wait(10)
            mine = [outer, inner]
            barrier.wait(10)
        return mine

    with ThreadPoolExecutor(4) as pool:
        pairs = list(pool.map(work, range(4)))
    left = [number for word, number in log if word == "out"]
    assert all(left.index(inner) < left.index(outer) for outer, inner in pairs)
    assert sorted(left) == sorted(number for pair in pairs for number in pair)


def test_another_thread_may_end_it():
    made, log = counting()
    context = made()
    context.__enter__()
    thread = threading.Thread(target=context.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert log == [("in", 0), ("out", 0)]


def test_as_a_decorator_it_begins_anew_at_each_call():
    made, log = counting()

    @made()
    def countdown(depth):
        return countdown(depth - 1) if depth else [word for word, _ in log].count("in")

    assert [countdown(2), countdown(0)] == [3, 4]
    assert [word for word, _ in log] == ["in"] * 3 + ["out"] * 3 + ["in", "out"]


def test_what_fails_to_begin_is_not_left():
    @reusable
    def refused():
        raise PlantedError
        yield

    context = refused()
    for _ in range(2):
        with pytest.raises(PlantedError), context:
            pytest.fail("entered")


def test_it_tells_what_it_is_made_of():
    made, _ = counting()
    assert made.__name__ == "entered"


def test_the_contexts_of_the_package_can_be_entered_again():
    pytest.importorskip("transformers", reason="caches of transformers")
    from kvconform import exportable, patch_functions, register_flattening_functions
    from kvconform.checks.registry import registry_snapshot
    from kvconform.kvcache.tree import register

    for make in (register_flattening_functions, patch_functions, exportable, register):
        context = make()
        with context:
            # What is imported on the way registers classes of its own, once.
            pass
        before = registry_snapshot()
        for _ in range(2):
            with context, context:
                pass
            assert registry_snapshot() == before, make
