"""Round trip: what comes back from flattening and unflattening a cache."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torch.utils._pytree as pytree

from kvconform.checks import aside, each, flight, making, spaces, specs, symbolic, trees, unusual
from kvconform.checks.behave import append, crop, crops_by_count, states
from kvconform.checks.caches import EXAMPLES, Example, examples
from kvconform.checks.cases import PLAIN, Case
from kvconform.checks.errors import expect
from kvconform.checks.many import expect_for_all
from kvconform.checks.needs import lookup
from kvconform.checks.observe import differences, observe
from kvconform.checks.whole import expect_same_leaves, expect_whole
from kvconform_conformance.runner.subjects import Subject

every = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
growing = pytest.mark.parametrize(
    "example",
    examples("dynamic-two-layers", "dynamic-one-layer", "encoder-decoder", "mixed-below"),
    ids=lambda r: r.name,
)


@every
def test_whole(registered: object, example: Example) -> None:
    """A cache comes back with everything it held, its tensors uncopied, its counters exact."""
    trees.expect_round_trip(example.build(), example.where)


@every
def test_after_changes(registered: object, example: Example) -> None:
    """A cache that was cropped, reordered, repeated, selected from, reset or grew comes back whole too."""
    trees.expect_whole_after_changes(example.build(), example.where)


@every
def test_twice(registered: object, example: Example) -> None:
    """A second round trip loses nothing either."""
    trees.expect_round_trip(trees.round_trip(example.build(), example.where), example.where)


@pytest.mark.parametrize("space", spaces.SPACES, ids=lambda space: space.name)
def test_generated(registered: object, space: spaces.Space) -> None:
    """Hundreds of caches drawn from fixed seeds come back whole; the plainest that does not is told."""
    expect_for_all(space.cases(), _expect_whole)


@pytest.mark.parametrize("sweep", spaces.SWEEPS, ids=lambda sweep: sweep.name)
def test_every_size(registered: object, sweep: spaces.Sweep) -> None:
    """A cache of every size of one dimension comes back whole: none is a threshold."""
    expect_for_all(sweep.cases(), _expect_whole)


@pytest.mark.parametrize("space", spaces.SPACES, ids=lambda space: space.name)
def test_in_flight(registered: object, space: spaces.Space) -> None:
    """Many caches, all flattened before the first is rebuilt, and each rebuilt twice in another order, do not mix."""
    cases = [*space.some(30), *(spaces.EACH_EXAMPLE if space.name == "examples" else ())]
    flight.expect_all_apart(cases, seed=5)


@pytest.mark.parametrize("example", each.with_attributes(), ids=lambda example: example.name)
def test_each_attribute(registered: object, example: Example) -> None:
    """Each attribute comes back in its place, where neighbours and another cache in flight have other values."""
    each.expect_each_attribute(example)


@pytest.mark.parametrize("example", each.with_devices(), ids=lambda example: example.name)
def test_mixed_devices(registered: object, example: Example) -> None:
    """A cache comes back whose first layers are on one device and whose last are on another."""
    each.expect_mixed_devices(example)


@pytest.mark.parametrize(
    "example", examples("dynamic-two-layers", "static-below", "encoder-decoder"), ids=lambda example: example.name
)
def test_process_unchanged(registered: object, example: Example) -> None:
    """A round trip changes nothing of the process: random generators, modes of gradients, defaults, filters."""
    aside.expect_process_unchanged(example)


@pytest.mark.parametrize("example", symbolic.examples(), ids=lambda example: example.name)
def test_symbolic(registered: object, example: Example) -> None:
    """A cache of symbolic sizes comes back without a condition on any of them: a program is good for every size."""
    symbolic.expect_no_conditions(example)


@pytest.mark.parametrize("mode", [*aside.MODES])
def test_under(registered: object, mode: str) -> None:
    """A cache comes back as it was under a mode, a default type or a default device, which no cache depends on."""
    drawn = spaces.BY_NAME["examples"].some(120)
    for name in ("gradients", "views"):
        drawn += spaces.BY_NAME[name].some(25)
    expect_for_all(drawn, partial(aside.expect_whole_under, mode))


def test_own_class(subject: Subject) -> None:
    """A cache of the user's own subclass comes back as that class, with the attributes that the user set."""
    making.own_classes()
    with subject.activate():
        for owner in ("user", "parts", "namesake"):
            expect_for_all(spaces.BY_NAME["attributes"].some(40, owner=owner), _expect_whole)


def test_own_slots(subject: Subject) -> None:
    """What a cache of the user's class keeps in slots comes back, or is refused by an error that names the class."""
    slotted = each.with_slots()
    with subject.activate():
        for where, cache in slotted:
            each.expect_own_slots(cache, where)


@pytest.mark.parametrize("name", unusual.NAMES)
def test_unusual(registered: object, name: str) -> None:
    """What few put into a cache (kinds of values, shared objects, odd names) comes back as it was, or is refused."""
    for example in examples("dynamic-two-layers", "static-below"):
        unusual.expect_same_or_refused(name, example)


def test_own_class_promises(subject: Subject) -> None:
    """What a node promises (order, paths, JSON, torch.fx, `tree_map`) holds for the user's own subclasses too."""
    making.own_classes()
    with subject.activate():
        for owner in ("parts", "namesake"):
            expect_for_all(spaces.BY_NAME["attributes"].some(12, owner=owner), specs.expect_promises)


@pytest.mark.parametrize("example", each.with_layers(), ids=lambda example: example.name)
def test_own_layers(registered: object, example: Example) -> None:
    """A layer of the user's own class comes back as that, or is refused by an error that names the class."""
    each.expect_own_layers(example)


def test_threads(registered: object) -> None:
    """Round trips in four threads at once do not mix."""
    cases = [case for case in spaces.BY_NAME["anything"].some(60) if making.possible(case)]
    flight.expect_threads(cases, times=4)


def test_across_threads(registered: object) -> None:
    """A cache that one thread flattened comes back whole in another."""
    expect_for_all(spaces.BY_NAME["anything"].some(40), flight.expect_across_threads)


def test_placeholders(registered: object) -> None:
    """Whatever stands in the place of a leaf comes back there, as shapes and symbols do in `torch.export`."""
    expect_for_all(spaces.BY_NAME["anything"].some(100, attributes="none"), flight.expect_placeholders)


def test_after_an_error(registered: object) -> None:
    """A cache comes back whole after an attempt that raised: an error leaves no state in the registration."""
    for name in ("attributes", "anything"):
        expect_for_all(spaces.BY_NAME[name].some(20), flight.expect_whole_after_an_error)


def test_as_it_was(registered: object) -> None:
    """A spec stays that of the cache as it was, and rebuilds it so, however the cache is changed afterwards."""
    expect_for_all([*spaces.EACH_EXAMPLE, *spaces.BY_NAME["attributes"].some(30)], flight.expect_as_it_was)


def test_copies(registered: object) -> None:
    """Copies of a restored cache, shallow, deep and by pickle, are what copies of the original are."""
    expect_for_all(spaces.BY_NAME["anything"].some(40, tensors="plain"), flight.expect_copies)


def test_nothing_kept(registered: object) -> None:
    """A cache, its layers and its tensors are freed when the caller lets them go; the spec keeps none of them."""
    cases = [Case(layers=2, kind=kind, pattern=pattern) for kind, pattern in KEPT]
    flight.expect_nothing_kept([case for case in cases if making.possible(case)])


KEPT = (("dynamic", "full"), ("configured", "sliding"), ("static", "mixed"), ("static", "full"), ("pair", "full"))


def _expect_whole(case: Case) -> None:
    expect_whole(making.build(case))


@growing
def test_independent(registered: object, example: Example) -> None:
    """Growing the restored cache leaves the original as it was."""
    trees.expect_independent(example.build(), example.where)


@pytest.mark.parametrize("name", ["list", "tuple", "dict", "named-tuple", "ordered-dict", "deep"])
def test_nested(registered: object, name: str) -> None:
    """Caches inside a container come back in it, each in its place."""
    cache = examples("dynamic-two-layers")[0].build()
    trees.expect_registered(cache)
    expect_whole_inside(CONTAINERS[name](cache, making.build(replace(PLAIN, layers=3, length=7)), torch.ones(1)))


class Pair(NamedTuple):
    """A named tuple of the user's."""

    past: Any
    other: Any


CONTAINERS: dict[str, Callable[[Any, Any, torch.Tensor], Any]] = {
    "list": lambda cache, other, tensor: [cache, other, tensor, cache],
    "tuple": lambda cache, other, tensor: (cache, tensor, other),
    "dict": lambda cache, other, tensor: {"past": cache, "tensor": tensor, "another": other},
    "named-tuple": lambda cache, other, tensor: Pair(other, (tensor, cache)),
    "ordered-dict": lambda cache, other, tensor: OrderedDict(past=cache, before=[other], tensor=tensor),
    "deep": lambda cache, other, tensor: {"a": [({"b": cache}, [tensor, (other,)])], "c": (other, None)},
}


def expect_whole_inside(value: Any) -> None:
    """Prove that a container comes back as it was, caches and all; what is in it twice comes back as two."""
    leaves, spec = pytree.tree_flatten(value)
    restored = pytree.tree_unflatten(leaves, spec)
    again, spec_again = pytree.tree_flatten(restored)
    expect_same_leaves(again, leaves, "the restored container has other leaves")
    expect(spec_again == spec, f"the spec of the restored container is {spec_again}, expected {spec}")
    found, expected = observe(restored), observe(value)
    twice = [path for path, atom in expected.items() if isinstance(atom, str) and atom.startswith("the same object")]
    wanted = {path: atom for path, atom in expected.items() if path not in twice}
    got = {path: atom for path, atom in found.items() if not path.startswith(tuple(twice))}
    trees.expect_no_differences(differences(got, wanted), "lost in a round trip inside a container")


@pytest.mark.parametrize("seed", range(6))
def test_random(registered: object, seed: int) -> None:
    """A DynamicCache of random layers, sizes and operations comes back whole (the seed is in the id)."""
    cache, history = _random_cache(random.Random(seed))  # noqa: S311 - reproducible, not secret
    trees.expect_round_trip(cache, f"DynamicCache after {history}")


def _random_cache(choose: random.Random) -> tuple[Any, str]:
    """Apply a few random operations to a DynamicCache of one to four layers."""
    cache = lookup("transformers.cache_utils:DynamicCache")()
    layers, batch, heads, width = (
        choose.randint(1, 4),
        choose.randint(1, 3),
        choose.randint(1, 3),
        choose.choice([2, 8]),
    )
    dtype = choose.choice([torch.float32, torch.float16, torch.bfloat16])
    length, history = 0, []
    for step in range(choose.randint(1, 5)):
        operation = choose.choice(["update", "update", "crop", "reorder"]) if length > 2 else "update"
        if operation == "update":
            tokens = choose.randint(1, 6)
            for layer in range(layers):
                append(cache, *states(batch, heads, tokens, width, seed=step * 10 + layer, dtype=dtype), layer, length)
            length += tokens
        elif operation == "crop":
            crop(cache, length, 1)
            length -= 1
        else:
            cache.reorder_cache(torch.arange(batch - 1, -1, -1))
        history.append(f"{operation} ({length} tokens)")
    return cache, f"{', '.join(history)}; {layers} layers, crop by {'count' if crops_by_count(cache) else 'length'}"
