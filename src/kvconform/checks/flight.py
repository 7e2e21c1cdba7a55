"""Several caches at once: a registration may remember nothing from one to the next, and share nothing between them."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import random
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks import making
from kvconform.checks.behave import operations
from kvconform.checks.cases import Case
from kvconform.checks.errors import ExpectationError, expect, expect_equal
from kvconform.checks.needs import NotApplicableError
from kvconform.checks.observe import SCALARS
from kvconform.checks.trees import expect_registered
from kvconform.checks.whole import expect_same_cache, expect_same_leaves, expect_whole, tensors_of


def expect_apart(cases: Sequence[Case], seed: int) -> None:
    """Prove that caches in flight at once do not mix: all are flattened, then each is rebuilt, twice, in another order.

    A registration that keeps something of the cache which it met last gives it to another here.
    """
    __tracebackhide__ = True
    caches = [(case, making.build(case)) for case in cases]
    for case, cache in caches:
        expect_registered(cache, str(case))
    flown = [(case, cache, *pytree.tree_flatten(cache)) for case, cache in caches]
    order = [*range(len(flown)), *range(len(flown))]
    random.Random(seed).shuffle(order)  # noqa: S311 - reproducible, not secret
    rebuilt: dict[int, Any] = {}
    for index in order:
        case, cache, leaves, spec = flown[index]
        got = pytree.tree_unflatten(leaves, spec)
        where = f"{case}, rebuilt among {len(flown)} caches in flight"
        expect_same_cache(got, cache, "lost in a round trip", leaves, where)
        if index in rebuilt:
            expect_nothing_shared(got, rebuilt[index], "two caches rebuilt from the same leaves", str(case))
        expect_nothing_shared(got, cache, "a cache and the one rebuilt from its leaves", str(case))
        rebuilt[index] = got
    for index, (case, cache, leaves, spec) in enumerate(flown):
        expect_same_cache(rebuilt[index], cache, "changed after it was rebuilt", leaves, str(case))
        again, spec_again = pytree.tree_flatten(rebuilt[index])
        expect_same_leaves(again, leaves, "the restored cache has other leaves", str(case))
        expect(spec_again == spec, f"the spec of the restored cache is {spec_again}, expected {spec}", str(case))


def expect_all_apart(cases: Sequence[Case], seed: int) -> None:
    """`expect_apart` of those cases that this release can hold, all of them in flight together.

    Raises:
        NotApplicableError: it can hold fewer than two, so that none could mix with another.
    """
    __tracebackhide__ = True
    held = [case for case in cases if making.possible(case)]
    if len(held) < 2:  # noqa: PLR2004 - a pair
        raise NotApplicableError("this release has no two caches of the kind that is asked about")
    expect_apart(held, seed)


def expect_nothing_shared(one: Any, other: Any, what: str, where: str = "") -> None:
    """Prove that two caches have no list, mapping or object in common, only tensors: a change of one is its own."""
    __tracebackhide__ = True
    held = _changeable(other)
    common = [name for key, (name, _) in _changeable(one).items() if key in held]
    expect(not common, f"{what} share {', '.join(common[:3])}, expected nothing but tensors in common", where)


def _changeable(value: Any) -> dict[int, tuple[str, Any]]:
    """Every object that can be changed in place, tensors aside, with where it is, by its id."""
    found: dict[int, tuple[str, Any]] = {}
    _collect(value, type(value).__name__, found)
    return found


def _collect(value: Any, name: str, found: dict[int, tuple[str, Any]]) -> None:
    if isinstance(value, (*SCALARS, type, torch.Tensor, torch.Stream)) or id(value) in found:
        return
    if callable(value) and hasattr(value, "__qualname__"):
        return
    if not isinstance(value, (tuple, frozenset)):
        found[id(value)] = name, value
    parts: dict[str, Any] = dict(getattr(value, "__dict__", {}))
    if isinstance(value, dict):
        parts |= {f"[{key!r}]": part for key, part in value.items()}
    elif isinstance(value, (list, tuple)):
        parts |= {f"[{index}]": part for index, part in enumerate(value)}
    for step, part in parts.items():
        _collect(part, f"{name}{step}" if step.startswith("[") else f"{name}.{step}", found)


def expect_copies(case: Case) -> None:
    """Prove that copies of a rebuilt cache (shallow, deep, by pickle) are what copies of the original are."""
    __tracebackhide__ = True
    cache = making.build(case)
    expect_registered(cache, str(case))
    rebuilt = pytree.tree_unflatten(*pytree.tree_flatten(cache))
    for name, made in (("copy.copy", copy.copy), ("copy.deepcopy", copy.deepcopy), ("pickle", _pickled)):
        expect_same_cache(made(rebuilt), made(cache), f"{name} of a restored cache differs", (), str(case))
    deep = copy.deepcopy(rebuilt)
    expect_whole(deep, f"{case}, a deep copy of a restored cache")


def _pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - made a moment ago


def expect_nothing_kept(cases: Sequence[Case]) -> None:
    """Prove that nothing of a cache is kept once the caller has let it go: not the cache, no layer, no tensor.

    The spec stays, as an exported program keeps it.
    """
    __tracebackhide__ = True
    gone = [(case, *_let_go(case)) for case in cases]
    gc.collect()
    for case, spec, watched in gone:
        kept = sorted({name for name, reference in watched if reference() is not None})
        expect_equal("what is still alive after a cache and its leaves are gone", kept, [], str(case))
        expect(spec.num_leaves > 0, "the cache has no leaves", str(case))


def _let_go(case: Case) -> tuple[Any, list[tuple[str, Any]]]:
    cache = making.build(case)
    expect_registered(cache, str(case))
    leaves, spec = pytree.tree_flatten(cache)
    rebuilt = pytree.tree_unflatten(leaves, spec)
    watched: list[Any] = [cache, rebuilt, *tensors_of(leaves)]
    watched += [layer for one in (cache, rebuilt) for layer in vars(one).get("layers") or ()]
    return spec, [(type(one).__name__, weakref.ref(one)) for one in watched]


def expect_placeholders(case: Case) -> None:
    """Prove that any leaves come back where they were: `torch.export` puts shapes and symbols in tensors' places."""
    __tracebackhide__ = True
    cache = making.build(case)
    expect_registered(cache, str(case))
    spec = pytree.tree_flatten(cache)[1]
    places: list[Any] = [_Placeholder(index) for index in range(spec.num_leaves)]
    # `torch.vmap` is given 0 for each leaf, a filter False: what is false is not nothing.
    for filled in (places, [0] * len(places), [False] * len(places), [""] * len(places)):
        got = pytree.tree_leaves(pytree.tree_unflatten(filled, spec))
        expect_equal("the leaves of a cache of placeholders", got, filled, str(case))


class _Placeholder:
    """Stands for a leaf; equal to nothing but itself."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __repr__(self) -> str:
        return f"leaf {self.index}"


def expect_threads(cases: Sequence[Case], times: int, threads: int = 4) -> None:
    """Prove that round trips in several threads at once do not mix."""
    __tracebackhide__ = True
    shares = [[making.build(case) for case in cases[first::threads]] for first in range(threads)]
    failures: list[Exception] = []

    def work(caches: list[Any]) -> None:
        try:
            for _ in range(times):
                for cache in caches:
                    leaves, spec = pytree.tree_flatten(cache)
                    expect_same_cache(pytree.tree_unflatten(leaves, spec), cache, "lost in a round trip", leaves)
        except Exception as error:  # noqa: BLE001 - told by the thread that waits
            failures.append(error)

    for cache in (cache for share in shares for cache in share):
        expect_registered(cache)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        started = [threading.Thread(target=work, args=(share,)) for share in shares]
        for one in started:
            one.start()
        for one in started:
            one.join()
    finally:
        sys.setswitchinterval(interval)
    for error in failures:
        if isinstance(error, ExpectationError):
            raise ExpectationError(f"{error} [{threads} threads at once]") from None
        raise error


def expect_whole_after_an_error(case: Case) -> None:
    """Prove that an error leaves nothing behind: whoever takes back what was refused has a whole cache again.

    Flattening is asked for an attribute that no tree can hold, rebuilding for too few children. Whether it raises is
    the registration's choice.
    """
    __tracebackhide__ = True
    cache = making.build(case)
    expect_registered(cache, str(case))
    leaves, spec = pytree.tree_flatten(cache)
    for owner in (cache, *(vars(cache).get("layers") or ())[:1]):
        owner.own_refused = iter(())
        with contextlib.suppress(Exception):
            pytree.tree_flatten(cache)
        del owner.own_refused
        again, spec_again = pytree.tree_flatten(cache)
        expect_same_leaves(again, leaves, "after an error a cache has other leaves", str(case))
        expect(spec_again == spec, f"after an error the spec is {spec_again}, expected {spec}", str(case))
    node = pytree.SUPPORTED_NODES[type(cache)]
    children, context = node.flatten_fn(cache)
    with contextlib.suppress(Exception):
        node.unflatten_fn([*children][:-1], context)
    expect_whole(cache, f"{case}, after an error")


def expect_as_it_was(case: Case) -> None:
    """Prove that a spec is of the cache as it was when it was flattened, whatever is done to the cache afterwards.

    An exported program keeps the spec of the cache that it was exported with; the caller goes on with that cache. A
    second cache, made alike, tells what the spec was and holds the leaves as they were.
    """
    __tracebackhide__ = True
    cache, alike = making.build(case), making.build(case)
    expect_registered(cache, str(case))
    spec = pytree.tree_flatten(cache)[1]
    leaves, expected = pytree.tree_flatten(alike)
    for name, change in (("each operation", _operate), ("all that it holds set anew", _spoil)):
        change(cache)
        where = f"changed after it was flattened: {name}"
        expect(spec == expected, f"the spec has become {spec}, expected {expected}", where)
        expect_same_cache(pytree.tree_unflatten(leaves, spec), alike, "no longer what was flattened", leaves, where)


def _operate(cache: Any) -> None:
    """Do everything to a cache that its release can do to it."""
    for change in operations(cache).values():
        with contextlib.suppress(Exception):
            change(cache)


def _spoil(cache: Any) -> None:
    """Empty every list and mapping of a cache, and set each attribute of each object in it to another value."""
    for _, held in [*_changeable(cache).values()]:
        if hasattr(held, "__dict__"):
            vars(held).update(dict.fromkeys(vars(held), "changed"))
        if isinstance(held, (list, dict, set)):
            held.clear()


def expect_across_threads(case: Case) -> None:
    """Prove that a cache which one thread flattened comes back whole in another, as in a data loader or a server."""
    __tracebackhide__ = True
    cache = making.build(case)
    expect_registered(cache, str(case))
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        leaves, spec = one.submit(pytree.tree_flatten, cache).result()
        restored = other.submit(pytree.tree_unflatten, leaves, spec).result()
    expect_same_cache(restored, cache, "lost from one thread to another", leaves, str(case))
    rebuilt = pytree.tree_unflatten(leaves, spec)
    expect_same_cache(rebuilt, cache, "lost from one thread to another", leaves, str(case))
