"""Classes that are created while registration is active: by an import, by hand, nested, in threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

import kvconform
from kvconform import arrivals, probes, register_flattening_functions
from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot

pytestmark = pytest.mark.usefixtures("_clean_tables")


@pytest.fixture(autouse=True)
def _nothing_watches():
    """Fail a test that leaves a hook in a class or in `sys.meta_path`, or another order of attributes."""
    before = hooks()
    yield
    assert hooks() == before


def hooks():
    bases = (probes.cache_class("Cache"), probes.model_output_class())
    return [list(sys.meta_path), *((list(vars(base)), vars(base).get("__init_subclass__")) for base in bases)]


def new_cache_class():
    class LateCache(probes.cache_class("DynamicCache")):
        """A cache that is defined inside a block."""

    return LateCache


def new_output_class():
    @dataclass
    class LateOutput(probes.model_output_class()):
        last: torch.Tensor | None = None

    return LateOutput


def is_node(cls):
    """Whether an instance of a class with one layer (or item) of 2 (or 1) tensors is flattened and rebuilt."""
    if issubclass(cls, probes.model_output_class()):
        made, expected = cls(last=torch.ones(1)), 1
    else:
        made, expected = cls(), 2
        made.update(torch.ones(1, 1, 3, 2), torch.zeros(1, 1, 3, 2), 0)
    leaves, spec = pytree.tree_flatten(made)
    return len(leaves) == expected and type(pytree.tree_unflatten(leaves, spec)) is cls


def registered_by_us(cls):
    return cls in pytree.SUPPORTED_NODES and pytree.SUPPORTED_NODES[cls].flatten_fn.__module__.startswith("kvconform")


def test_a_cache_class_of_ones_own_is_a_node_as_soon_as_it_is_defined():
    with register_flattening_functions():
        cls = new_cache_class()
        assert is_node(cls)
        assert cls in torch.serialization.get_safe_globals()
    assert cls not in pytree.SUPPORTED_NODES
    assert cls not in torch.serialization.get_safe_globals()


def test_an_output_class_of_ones_own_is_transformers_again_afterwards():
    before = registry_snapshot()
    outside = new_output_class()
    theirs = type(pytree.SUPPORTED_NODES[outside].flatten_fn)
    with register_flattening_functions():
        cls = new_output_class()
        assert is_node(cls)
        assert registered_by_us(cls)
    assert not registered_by_us(cls)
    assert type(pytree.SUPPORTED_NODES[cls].flatten_fn) is theirs
    for made in (outside, cls):
        kvconform.unregister_class_flattening(made)
    expect_registry_unchanged(before)


def test_a_hook_of_ones_own_is_called_and_stays():
    calls = []

    class Base:
        def __init_subclass__(cls, flag=None, **arguments):
            super().__init_subclass__(**arguments)
            calls.append((cls.__name__, flag))

    own = vars(Base)["__init_subclass__"]
    seen = []
    watch = arrivals.Watch((Base,), seen.append, lambda module: None)
    watch.start()
    one = type("One", (Base,), {}, flag=1)
    watch.stop()
    type("Two", (Base,), {})
    assert calls == [("One", 1), ("Two", None)]
    assert seen == [one]
    assert vars(Base)["__init_subclass__"] is own


def test_a_class_defined_in_an_inner_block_is_a_node_until_the_outer_one_ends():
    with register_flattening_functions():
        early = new_cache_class()
        with register_flattening_functions():
            late = new_cache_class()
            assert is_node(early)
            assert is_node(late)
        assert is_node(early)
        assert is_node(late)
    assert not pytree.SUPPORTED_NODES.keys() & {early, late}


def test_a_block_of_adapters_alone_neither_watches_nor_keeps_a_class():
    with register_flattening_functions(patch_transformers=False):
        assert new_cache_class() not in pytree.SUPPORTED_NODES
        with register_flattening_functions():
            late = new_cache_class()
            assert is_node(late)
        assert late not in pytree.SUPPORTED_NODES
    with register_flattening_functions():
        with register_flattening_functions(patch_transformers=False):
            late = new_cache_class()
        assert is_node(late)


def test_an_exception_ends_the_watch():
    before, made = hooks(), []

    def fails():
        with register_flattening_functions():
            made.append(new_cache_class())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert hooks() == before
    assert made[0] not in pytree.SUPPORTED_NODES


def test_blocks_of_threads_end_in_any_order():
    """The first block ends while the second runs: the second keeps its nodes, and puts the tables back."""
    first_ended, second_began, second_may_end = (threading.Event() for _ in range(3))
    answers = {}

    def second():
        with register_flattening_functions():
            second_began.set()
            assert first_ended.wait(60)
            answers["old"] = is_node(probes.cache_class("DynamicCache"))
            answers["late"] = is_node(answers["class"])
            answers["later"] = is_node(new_cache_class())
            second_may_end.wait(60)

    thread = threading.Thread(target=second)
    with register_flattening_functions():
        answers["class"] = new_cache_class()
        thread.start()
        assert second_began.wait(60)
    first_ended.set()
    second_may_end.set()
    thread.join(60)
    # The fixture compares the tables.
    assert (answers["old"], answers["late"], answers["later"]) == (True, True, True)


def test_threads_that_define_classes_leave_no_trace():
    failures = []

    def work():
        try:
            for _ in range(5):
                with register_flattening_functions():
                    assert is_node(new_cache_class())
        except BaseException as error:  # noqa: BLE001 (a thread's failure is the test's)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []


# ------------------------------------------------------------------------------------------- importing a model inside

_IMPORTS_INSIDE = """
import importlib, sys
from contextlib import ExitStack
from torch.utils import _pytree as pytree
from kvconform import register_flattening_functions, probes
from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot

def is_ours(cls):
    return pytree.SUPPORTED_NODES[cls].flatten_fn.__module__.startswith("kvconform")

importlib.import_module("transformers.modeling_outputs")
with register_flattening_functions():
    pass
finders = list(sys.meta_path)
for number, (module, name) in enumerate(argument.split(":") for argument in sys.argv[1:]):
    with ExitStack() as stack:
        for _ in range(1 + number % 2):
            stack.enter_context(register_flattening_functions())
        assert module not in sys.modules, f"{module} was imported before, and shows nothing"
        found = importlib.import_module(module)
        cls = getattr(found, name)
        assert is_ours(cls), cls
        outputs = [one for one in probes.classes_in(found) if issubclass(one, probes.model_output_class())]
        assert all(is_ours(one) for one in outputs), outputs
        for loader in (found.__spec__.loader, found.__loader__):
            assert type(loader).__module__ in ("importlib._bootstrap_external", "_frozen_importlib_external"), loader
    assert finders == sys.meta_path
    assert cls not in pytree.SUPPORTED_NODES
    assert not any(is_ours(one) for one in outputs), outputs
    # As if the import had come before: another block changes nothing.
    before = registry_snapshot()
    with register_flattening_functions():
        assert is_ours(cls)
    expect_registry_unchanged(before)
    print(name)
"""

# Caches that are no subclasses of Cache, subclasses, and caches of lists, in the modules of their models.
_MODULES = (
    ("transformers.models.qwen3_next.modeling_qwen3_next", "Qwen3NextDynamicCache"),
    ("transformers.models.lfm2.modeling_lfm2", "Lfm2HybridConvCache"),
    ("transformers.models.minimax.modeling_minimax", "MiniMaxCache"),
    ("transformers.models.jamba.modeling_jamba", "HybridMambaAttentionDynamicCache"),
    ("transformers.models.mamba2.modeling_mamba2", "Mamba2Cache"),
    ("transformers.models.reformer.modeling_reformer", "ReformerDynamicCache"),
)


def has_class(module, name):
    """Whether this release defines a class, asked of its source: importing the module would spoil the test."""
    import transformers

    file = Path(transformers.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return file.exists() and f"class {name}" in file.read_text(encoding="utf-8")


def test_models_that_are_imported_inside_bring_their_caches():
    there = [(module, name) for module, name in _MODULES if has_class(module, name)]
    line = [sys.executable, "-c", _IMPORTS_INSIDE, *(f"{module}:{name}" for module, name in there)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        line, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [name for _, name in there]
    assert there, "this release has none of the classes: name one of its own"
