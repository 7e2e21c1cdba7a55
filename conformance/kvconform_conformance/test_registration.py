"""Registration: torch's pytree tables at import, in a subject's context and after it, and a node's promises."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch.utils._pytree as pytree

from kvconform.checks import aside, making, owned, spaces, specs, trees
from kvconform.checks.caches import EXAMPLES, Example, examples
from kvconform.checks.cases import Case
from kvconform.checks.errors import expect, expect_equal
from kvconform.checks.many import expect_for_all
from kvconform.checks.needs import cache_class, lookup
from kvconform.checks.patches import patch_snapshot
from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot
from kvconform_conformance.runner.needs import needs
from kvconform_conformance.runner.subjects import Subject

one_of_each = pytest.mark.parametrize(
    "example",
    examples(
        "dynamic-two-layers",
        "dynamic-empty",
        "dynamic-middle-layer-skipped",
        "sliding-below",
        "sliding-past",
        "mixed-past",
        "static-below",
        "static-sliding-past",
        "sliding-window-cache",
        "hybrid-cache",
        "encoder-decoder",
        "encoder-decoder-static",
        "linear-attention",
        "hybrid-attention",
        "indexed",
        "quantized-fp8",
    ),
    ids=lambda example: example.name,
)
CLASSES = ("DynamicCache", "StaticCache", "EncoderDecoderCache", "SlidingWindowCache", "HybridCache")


def _cache() -> Any:
    return examples("dynamic-two-layers")[0].build()


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(cache_class(name))) for name in CLASSES])
def test_registered(registered: object, name: str) -> None:
    """The class is a pytree node inside the context."""
    cls = lookup(f"transformers.cache_utils:{name}")
    expect(cls in pytree.SUPPORTED_NODES, f"{name} is not registered as a pytree node")


def test_undone(subject: Subject) -> None:
    """Leaving the context puts every pytree table back to what it was."""
    before = registry_snapshot()
    with subject.activate():
        trees.expect_registered(_cache())
    expect_registry_unchanged(before, "after leaving the context", safe_globals=False)


def test_safe_globals_undone(subject: Subject) -> None:
    """Leaving the context puts the safe globals of `torch.load` back too."""
    before = registry_snapshot()
    with subject.activate():
        trees.expect_registered(_cache())
    expect_registry_unchanged(before, "after leaving the context")


_EXCEPTIONS = (ValueError, KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit)


@pytest.mark.parametrize("kind", _EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_undone_after_exception(subject: Subject, kind: type[BaseException]) -> None:
    """Leaving the context by an exception puts every pytree table back, and lets the exception through."""
    before = registry_snapshot()
    error = kind("planted")
    came_out = False
    try:
        with subject.activate():
            trees.expect_registered(_cache())
            raise error
    except kind as raised:
        expect(raised is error, f"the context raised {raised!r}, expected the exception that was raised in it")
        came_out = True
    expect(came_out, "the exception was swallowed, expected it to come out of the context")
    expect_registry_unchanged(before, "after an exception", safe_globals=False)


def test_process_unchanged(subject: Subject) -> None:
    """Entering and leaving changes nothing else of the process: environment, logging, warnings, defaults, hooks."""
    with aside.expect_nothing_else_changed("after leaving the context"), subject.activate():
        trees.expect_registered(_cache())


def test_own_node_back(subject: Subject) -> None:
    """Whoever registered a cache class before entering has that registration again after leaving."""
    classes = [cls for cls in map(lookup, (f"transformers.cache_utils:{name}" for name in CLASSES)) if cls is not None]
    for cls in classes:
        specs.register_plainly(cls)
    before = registry_snapshot()
    with subject.activate():
        trees.expect_flattens(_cache(), "inside the context")
    expect_registry_unchanged(before, "after leaving the context", safe_globals=False)


def test_spec_every_time(subject: Subject) -> None:
    """The spec of a cache is the same whenever the context is entered: a program outlives the block it was made in."""
    specs.expect_same_spec_every_time(subject.activate, spaces.BY_NAME["anything"].some(40, tensors="plain"))


def test_nested(subject: Subject) -> None:
    """A context inside a context: caches stay registered until the outer one is left, then nothing stays."""
    before = registry_snapshot()
    cache = _cache()
    with subject.activate():
        inside = registry_snapshot()
        with subject.activate():
            trees.expect_flattens(cache, "inside the inner context")
        trees.expect_flattens(cache, "after the inner context")
        expect_registry_unchanged(inside, "after the inner context", safe_globals=False)
    expect_registry_unchanged(before, "after the outer context", safe_globals=False)


def test_nested_exception(subject: Subject) -> None:
    """An exception that leaves the inner context leaves the outer one as it is."""
    before = registry_snapshot()
    cache = _cache()
    with subject.activate():
        inside = registry_snapshot()
        try:
            with subject.activate():
                trees.expect_flattens(cache, "inside the inner context")
                raise ValueError("planted")  # noqa: TRY301 - leaving by it is what is asked
        except ValueError:
            pass
        trees.expect_flattens(cache, "after the inner context, which an exception left")
        expect_registry_unchanged(inside, "after an exception left the inner context", safe_globals=False)
    expect_registry_unchanged(before, "after the outer context", safe_globals=False)


def test_overlapping(subject: Subject) -> None:
    """Two contexts that overlap, as those of two threads: what the second registered stays when the first is left."""
    before = registry_snapshot()
    cache = _cache()
    with contextlib.ExitStack() as second:
        with subject.activate():
            second.enter_context(subject.activate())
        trees.expect_flattens(cache, "after the context that was entered first, inside the second")
    expect_registry_unchanged(before, "after both contexts", safe_globals=False)


def test_repeated(subject: Subject) -> None:
    """Entering a second time, after leaving, registers as the first time."""
    cache = _cache()
    before = registry_snapshot()
    for time in (1, 2):
        with subject.activate():
            trees.expect_flattens(cache, f"entered for time {time}")
        expect_registry_unchanged(before, f"left for time {time}", safe_globals=False)


def test_patches_undone(subject: Subject) -> None:
    """Leaving the context leaves no function of transformers or torch replaced."""
    before = patch_snapshot()
    with subject.activate():
        trees.expect_registered(_cache())
    expect_equal("what stays replaced in transformers and torch", before.changed(), [], "after leaving the context")


def test_others_untouched(subject: Subject) -> None:
    """Nodes of other classes are the same inside the context: lists, dicts, and a class that the user registered."""
    owned.expect_others_untouched(subject.activate)


def test_registered_inside_stays(subject: Subject) -> None:
    """A ModelOutput class that is defined inside the context (as by importing a model) is still a node after it."""
    owned.expect_late_output_stays(subject.activate)


def test_own_class_inside_stays(subject: Subject) -> None:
    """A class that the user registers inside the context is a node after it, and its spec is still written and read."""
    owned.expect_late_class_stays(subject.activate)


def test_class_defined_again(subject: Subject) -> None:
    """A class that the user defines again, as a notebook whose cell is run again does, comes back as the new one."""
    owned.expect_newest_class(subject.activate)


def test_model_output(registered: object) -> None:
    """A model's output with a cache in it comes back whole, its items in their order."""
    trees.expect_model_output(_cache())


def test_import_registers_nothing(subject: Subject) -> None:
    """Importing the subject's package, before its context is entered, registers no node (in a process of its own).

    It passes without any registration, and rightly: what is asked is what an import alone does.
    """
    # `kvconform with patches` is a subject of the package kvconform.
    if ":" in subject.name or subject.name.startswith("kvconform"):
        module = subject.name.partition(":")[0].partition(" ")[0]
    else:
        module = "transformers.cache_utils"
    script = (
        "import torch, torch.utils._pytree as p; before = set(p.SUPPORTED_NODES); "
        f"import {module}; new = [c.__name__ for c in p.SUPPORTED_NODES if c not in before]; "
        "print([name for name in new if name.endswith('Cache')])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)  # noqa: S603 - arguments are ours
    expect(answer.returncode == 0, f"importing {module} raised {answer.stderr.strip().splitlines()[-1:]}")
    expect_equal(f"cache classes registered by importing {module}", answer.stdout.strip().splitlines()[-1], "[]")


@one_of_each
def test_leaf_order(registered: object, example: Example) -> None:
    """Leaves are the keys and values of each layer in turn."""
    trees.expect_leaves_in_order(example.build(), example.where)


@one_of_each
def test_leaf_types(registered: object, example: Example) -> None:
    """Every leaf is a tensor or an int, and every state tensor is a leaf."""
    trees.expect_leaf_types(example.build(), example.where)


@one_of_each
def test_key_paths(registered: object, example: Example) -> None:
    """Every leaf has a path of its own."""
    trees.expect_key_paths(example.build(), example.where)


@one_of_each
def test_json_spec(registered: object, example: Example) -> None:
    """The spec survives its JSON text and then rebuilds the same cache."""
    trees.expect_json_spec(example.build(), example.where)


@one_of_each
def test_fx_agrees(registered: object, example: Example) -> None:
    """The tables of torch.fx give the leaves of torch.utils."""
    trees.expect_fx_agrees(example.build(), example.where)


@one_of_each
def test_tree_map(registered: object, example: Example) -> None:
    """`tree_map` gives a cache of mapped tensors and spares the original."""
    trees.expect_tree_map(example.build(), example.where)


CONSTANT = tuple(example for example in EXAMPLES if example.length >= 5 and example.name != "static-full")


@pytest.mark.parametrize("example", CONSTANT, ids=lambda example: example.name)
def test_spec_constant(registered: object, example: Example) -> None:
    """The spec of a cache two tokens longer is the same."""
    for more in (1, 2, 5) if example.grows else (1, 2):
        longer = example.build(length=example.length + more)
        trees.expect_spec_constant_over_length(example.build(), longer, example.where)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_spec_batch(registered: object, example: Example) -> None:
    """The spec of a cache of another batch size is the same."""
    for batch in (1, 3, 8):
        trees.expect_spec_constant_over_batch(example.build(), example.build(batch=batch), example.where)


def test_spec_in_any_order(registered: object) -> None:
    """The spec is the same in whichever order the attributes of a cache and its layers were set."""
    drawn = spaces.BY_NAME["attributes"].some(20)
    expect_for_all([*spaces.EACH_EXAMPLE, *drawn], specs.expect_spec_in_any_order)


def _promised(name: str) -> list[Case]:
    """Cases of few layers, which take less time; three where all have many. Of the examples, each."""
    if name == "examples":
        return [*spaces.EACH_EXAMPLE]
    drawn = spaces.BY_NAME[name].some(40, tensors="plain")
    return [case for case in drawn if case.layers < 14][:15] or drawn[:3]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs(making.held(partial(_promised, name))))
        for name in (
            "many-layers",
            "more-than-hundred-layers",
            "values-of-another-width",
            "types",
            "windows",
            "skipped",
            "static",
            "attributes",
            "uneven",
            "examples",
            "anything",
        )
    ],
)
def test_promises(registered: object, name: str) -> None:
    """Order, types of leaves, key paths, JSON and copies of specs, torch.fx and `tree_map` hold for random caches."""
    expect_for_all(_promised(name), specs.expect_promises)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=needs(making.held(partial(iter, (case,))))) for name, (case, _) in specs.SIZES.items()],
)
def test_spec_sizes(registered: object, name: str) -> None:
    """The spec is the same at any batch, length, heads and width, at 0 and at 1 of them too."""
    specs.expect_spec_without_sizes(*specs.SIZES[name])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs(making.held(partial(iter, cases), at_least=2)))
        for name, cases in specs.STRUCTURES.items()
    ],
)
def test_spec_tells(registered: object, name: str) -> None:
    """Caches of different structure (layers, windows, classes, what is skipped) have different specs."""
    specs.expect_spec_tells(specs.STRUCTURES[name])
