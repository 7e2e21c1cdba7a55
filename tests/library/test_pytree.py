"""torch's tables: what is put is there, what is removed is gone, what is restored is what was."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as py_pytree

from kvconform import pytree, register_flattening_functions
from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot
from kvconform.pytree import Node

pytestmark = pytest.mark.usefixtures("_clean_tables")


class Pair:
    """A class that nobody has registered."""

    def __init__(self, left, right):
        self.left, self.right = left, right


def node(cls=Pair, name="tests.Pair"):
    return Node(
        cls,
        lambda pair: ([pair.left, pair.right], None),
        lambda children, _: cls(*children),
        lambda pair: (pytree.keyed(("left", "right"), (pair.left, pair.right)), None),
        name,
    )


def test_put_registers_in_every_table():
    pytree.put(node())
    try:
        leaves, spec = py_pytree.tree_flatten(Pair(1, 2))
        assert leaves == [1, 2]
        assert py_pytree.tree_unflatten([3, 4], spec).right == 4
        assert fx_pytree.tree_flatten_spec(Pair(5, 6), spec) == [5, 6]
        assert py_pytree.treespec_loads(py_pytree.treespec_dumps(spec)) == spec
        assert [py_pytree.keystr(path) for path, _ in py_pytree.tree_flatten_with_path(Pair(1, 2))[0]] == [
            "['left']",
            "['right']",
        ]
    finally:
        pytree.remove(Pair)


def test_remove_is_exact_and_may_be_repeated():
    before = pytree.snapshot()
    pytree.put(node())
    assert pytree.snapshot() != before
    pytree.remove(Pair)
    pytree.remove(Pair)
    assert pytree.snapshot() == before


def test_put_replaces_and_puts_back_the_very_objects():
    pytree.put(node())
    first = pytree.current(Pair)
    original = py_pytree.SUPPORTED_NODES[Pair]
    pytree.put(node(name="tests.Other"))
    assert py_pytree.SUPPORTED_NODES[Pair] is not original
    pytree.put(first)
    assert py_pytree.SUPPORTED_NODES[Pair] is original
    assert "tests.Other" not in py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE
    pytree.remove(Pair)


def test_putting_back_an_absent_class_removes_it():
    absent = pytree.current(Pair)
    assert not absent.exists
    pytree.put(node())
    pytree.put(absent)
    assert Pair not in py_pytree.SUPPORTED_NODES


def test_restore_limits_itself_to_the_classes_it_is_given():
    class Other(Pair):
        pass

    before = pytree.snapshot()
    pytree.put(node())
    pytree.put(node(Other, "tests.Other"))
    pytree.restore(before, [Pair])
    assert Pair not in py_pytree.SUPPORTED_NODES
    assert Other in py_pytree.SUPPORTED_NODES
    pytree.restore(before)
    assert pytree.snapshot() == before


def test_two_classes_without_a_serialized_name_share_one_entry(monkeypatch):
    """torch files all of them under one name, which the last one owns."""

    class Second(Pair):
        pass

    _keep_owner_of_no_name(monkeypatch)
    for cls in (Pair, Second):
        py_pytree.register_pytree_node(cls, lambda pair: ([pair.left], None), lambda children, _: Pair(*children, 0))
    before = registry_snapshot()
    saved = pytree.snapshot()
    pytree.put(node(Second, "tests.Second"))
    pytree.put(node())
    pytree.restore(saved)
    expect_registry_unchanged(before)
    for cls in (Second, Pair):
        old = pytree.current(cls)
        pytree.put(node(cls, "tests.any"))
        pytree.put(old)
    expect_registry_unchanged(before)
    names = py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE
    unnamed = py_pytree.NO_SERIALIZED_TYPE_NAME_FOUND
    pytree.remove(Pair)
    pytree.remove(Second)
    assert names.get(unnamed) not in (Pair, Second)


def _keep_owner_of_no_name(monkeypatch):
    """Have the entry that all classes without a name share put back when the test ends."""
    names, unnamed = py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE, py_pytree.NO_SERIALIZED_TYPE_NAME_FOUND
    monkeypatch.setitem(names, unnamed, names.get(unnamed, Pair))


@pytest.mark.skipif(not hasattr(py_pytree, "register_constant"), reason="this torch has no constants")
def test_a_constant_class_is_a_constant_again(monkeypatch):
    _keep_owner_of_no_name(monkeypatch)

    class Constant:
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 0

    py_pytree.register_constant(Constant)
    before = registry_snapshot()
    old = pytree.current(Constant)
    pytree.put(node(Constant, "tests.Constant"))
    pytree.put(old)
    expect_registry_unchanged(before)
    pytree.remove(Constant)


def test_fx_refuses_another_structure():
    named = Node(
        Pair,
        lambda pair: ([pair.left], [pair.right]),
        lambda children, context: Pair(*children, *context),
        lambda pair: (pytree.keyed(["left"], [pair.left]), [pair.right]),
        "tests.Pair",
    )
    pytree.put(named)
    try:
        spec = py_pytree.tree_structure(Pair(1, "a"))
        with pytest.raises(ValueError, match=r"\['b'\].*exported with \['a'\].*export once per structure"):
            fx_pytree.tree_flatten_spec(Pair(1, "b"), spec)
    finally:
        pytree.remove(Pair)


# ---------------------------------------------------------------------------------------------- the context


def test_the_context_leaves_no_trace():
    before = registry_snapshot()
    with register_flattening_functions():
        assert registry_snapshot().differences(before)
    expect_registry_unchanged(before)


def test_the_context_leaves_no_trace_after_an_exception():
    before = registry_snapshot()
    with pytest.raises(KeyError), register_flattening_functions():
        raise KeyError
    expect_registry_unchanged(before)


def test_the_context_leaves_no_trace_when_nested():
    before = registry_snapshot()
    with register_flattening_functions():
        outer = registry_snapshot()
        with register_flattening_functions(), pytest.raises(KeyError), register_flattening_functions():
            raise KeyError
        expect_registry_unchanged(outer)
    expect_registry_unchanged(before)


def test_the_context_undoes_what_transformers_registers_inside():
    executorch = pytest.importorskip("transformers.integrations.executorch", exc_type=ImportError)
    if not hasattr(executorch, "register_dynamic_cache_export_support"):
        pytest.skip("this release has no call that registers DynamicCache")
    before = registry_snapshot()
    with register_flattening_functions():
        pytree.remove(_dynamic_cache())
        executorch.register_dynamic_cache_export_support()
        assert py_pytree.SUPPORTED_NODES[_dynamic_cache()].flatten_fn.__module__.startswith("transformers")
    expect_registry_unchanged(before)


def test_a_registration_of_transformers_is_repaired_inside_and_back_afterwards():
    cls = _dynamic_cache()
    wrong = Node(cls, lambda _: ([], None), lambda _, __: cls(), lambda _: ([], None), "transformers.wrong")
    found = pytree.current(cls)
    pytree.put(wrong)
    original = py_pytree.SUPPORTED_NODES[cls]
    before = registry_snapshot()
    with register_flattening_functions():
        assert py_pytree.SUPPORTED_NODES[cls] is not original
    assert py_pytree.SUPPORTED_NODES[cls] is original
    expect_registry_unchanged(before)
    pytree.put(found)


def test_a_class_of_ones_own_registered_inside_stays():
    before = registry_snapshot()
    with register_flattening_functions():
        pytree.put(node())
    assert Pair in py_pytree.SUPPORTED_NODES
    pytree.remove(Pair)
    expect_registry_unchanged(before)


def _dynamic_cache():
    from transformers.cache_utils import DynamicCache

    return DynamicCache


# ---------------------------------------------------------------------------------------------- with optree
# torch.utils._cxx_pytree is imported once a process and for good: each order has a process of its own.

OPTREE = """
import sys
order, rounds = sys.argv[1], 2
import torch
from torch.utils import _pytree as py_pytree
from transformers.cache_utils import DynamicCache
import transformers.modeling_outputs
from kvconform import pytree, register_flattening_functions
from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot

def cxx():
    import torch.utils._cxx_pytree
    return torch.utils._cxx_pytree

def agree():
    import optree
    for cls in list(pytree.snapshot().nodes) + [DynamicCache]:
        if cls.__module__.startswith("transformers"):
            there = optree.register_pytree_node.get(cls, namespace="torch") is not None
            assert there == (cls in py_pytree.SUPPORTED_NODES), cls

cache = DynamicCache()
cache.update(torch.ones(1, 1, 2, 3), torch.zeros(1, 1, 2, 3), 0)
assert py_pytree._cxx_pytree_exists if hasattr(py_pytree, "_cxx_pytree_exists") else True
with register_flattening_functions():
    pass
if order == "before":
    cxx()
    agree()
for _ in range(rounds):
    before, tables = registry_snapshot(), pytree.snapshot()
    imported = py_pytree._cxx_pytree_imported
    with register_flattening_functions():
        if order == "inside":
            leaves, spec = cxx().tree_flatten(cache)
            agree()
        if order == "exception":
            try:
                with register_flattening_functions():
                    cxx()
                    raise KeyError
            except KeyError:
                agree()
        if py_pytree._cxx_pytree_imported:
            leaves, spec = cxx().tree_flatten(cache)
            assert len(leaves) == 2, leaves
            assert leaves[0] is py_pytree.tree_leaves(cache)[0]
            assert type(cxx().tree_unflatten(leaves, spec)) is DynamicCache
    if imported == py_pytree._cxx_pytree_imported:
        expect_registry_unchanged(before)
        assert pytree.snapshot() == tables
    if py_pytree._cxx_pytree_imported:
        agree()
cxx()
agree()
with register_flattening_functions():
    assert len(cxx().tree_leaves(cache)) == 2
agree()
print("agreed")
"""


@pytest.mark.skipif(find_spec("optree") is None, reason="optree is not installed here")
@pytest.mark.parametrize("order", ["before", "inside", "exception"])
def test_the_cxx_registry_is_as_exact(order):
    done = _run(OPTREE, order)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("agreed")


def test_without_optree_the_queue_stays_as_it_was():
    """torch queues registrations for a module that cannot be imported without optree."""
    before = list(getattr(py_pytree, "_cxx_pytree_pending_imports", []))
    with register_flattening_functions():
        pass
    assert list(getattr(py_pytree, "_cxx_pytree_pending_imports", [])) == before


def _run(script, *arguments):
    source = str(Path(pytree.__file__).parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_leaf_types_hold_for_symbols():
    assert torch.SymInt in pytree.TENSOR_LIKE
