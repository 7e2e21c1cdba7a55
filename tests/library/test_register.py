"""The registration functions of exporters, under their names."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as py_pytree

import kvconform
from kvconform import (
    CacheStructureError,
    UnknownLayerError,
    make_flattening_function_for_dataclass,
    probes,
    register,
    register_cache_adapter,
    register_cache_flattening,
    register_class_flattening,
    register_flattening_functions,
    unregister_cache_flattening,
    unregister_class_flattening,
)
from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot, restore_registry
from kvconform.pytree import keyed

pytestmark = pytest.mark.usefixtures("_clean_tables")


class Box(dict):
    """A container with keys and values."""


def functions():
    return make_flattening_function_for_dataclass(Box, set())


def dynamic_cache(tokens=3):
    cache = probes.cache_class("DynamicCache")()
    for layer in range(2):
        cache.update(torch.randn(2, 2, tokens, 4), torch.randn(2, 2, tokens, 4), layer)
    return cache


def test_a_class_is_registered_once():
    flatten, flatten_with_keys, unflatten = functions()
    assert register_class_flattening(Box, flatten, unflatten, flatten_with_keys, check=lambda: Box(a=1))
    first = py_pytree.SUPPORTED_NODES[Box]
    assert not register_class_flattening(Box, flatten, unflatten, flatten_with_keys)
    assert py_pytree.SUPPORTED_NODES[Box] is first
    unregister_class_flattening(Box)
    unregister_class_flattening(Box)
    assert Box not in py_pytree.SUPPORTED_NODES


@pytest.mark.parametrize(
    ("unflatten", "message"),
    [
        (lambda values, names: Box(zip(names, map(torch.clone, values), strict=True)), "leaves .* are other objects"),
        (lambda values, _: Box(b=next(iter(values))), "came back as"),
    ],
)
def test_a_check_that_fails_leaves_nothing(unflatten, message):
    flatten, flatten_with_keys, _ = functions()
    with pytest.raises(CacheStructureError, match=message):
        register_class_flattening(Box, flatten, unflatten, flatten_with_keys, check=lambda: Box(a=torch.ones(1)))
    assert Box not in py_pytree.SUPPORTED_NODES


def test_a_check_that_raises_leaves_nothing():
    flatten, flatten_with_keys, unflatten = functions()

    def check():
        raise KeyError

    with pytest.raises(KeyError):
        register_class_flattening(Box, flatten, unflatten, flatten_with_keys, check=check)
    assert Box not in py_pytree.SUPPORTED_NODES


def test_generated_functions_are_named_after_the_class():
    names = set()
    made = make_flattening_function_for_dataclass(type("HTTPOutputBox", (dict,), {}), names)
    assert [function.__name__ for function in made] == [
        "flatten_http_output_box",
        "flatten_with_keys_http_output_box",
        "unflatten_http_output_box",
    ]
    assert len(names) == 1


def test_permanent_registration_is_undone_by_what_it_returned():
    before = registry_snapshot()
    done = register_cache_flattening()
    assert probes.cache_class("DynamicCache") in done
    assert len(py_pytree.tree_leaves(dynamic_cache())) == 4
    unregister_cache_flattening(done)
    expect_registry_unchanged(before)


def test_a_name_that_two_classes_have_leads_to_the_same_one_afterwards():
    def defined():
        @dataclass
        class NotebookOutput(probes.model_output_class()):
            last: torch.Tensor | None = None

        return NotebookOutput

    undefined = registry_snapshot()
    first, second = defined(), defined()
    before = registry_snapshot()
    # The name is handed from one to the other, whichever is registered first.
    for order in ((first, second), (second, first)):
        done = register._register({cls: register._node_of(cls, counted=False) for cls in order})
        name = py_pytree.SUPPORTED_SERIALIZED_TYPES[second].serialized_type_name
        assert py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE[name] is second
        unregister_cache_flattening(done)
        expect_registry_unchanged(before)
    restore_registry(undefined, keep_model_outputs=False)


def test_a_failing_registration_undoes_what_it_began(monkeypatch):
    before = registry_snapshot()
    original, calls = register.pytree.put, []

    def failing(what):
        calls.append(what)
        if len(calls) == 3:
            raise RuntimeError
        original(what)

    monkeypatch.setattr(register.pytree, "put", failing)
    with pytest.raises(RuntimeError):
        register_cache_flattening()
    expect_registry_unchanged(before)


def test_without_transformers_only_adapters_are_registered(monkeypatch):
    monkeypatch.setattr(register, "_ADAPTED", {})
    before = registry_snapshot()
    with register_flattening_functions(patch_transformers=False) as done:
        expect_registry_unchanged(before)
    assert done == {}


class OwnCache:
    """A cache that is none of transformers'."""

    def __init__(self):
        self.states = [torch.ones(2, 3), torch.zeros(1)]
        self.settings = {"window": 4, "dtype": torch.float16}


def test_an_adapter_makes_a_class_a_node(monkeypatch):
    monkeypatch.setattr(register, "_ADAPTED", {})
    register_cache_adapter(OwnCache)
    cache = OwnCache()
    with register_flattening_functions(patch_transformers=False):
        leaves, spec = py_pytree.tree_flatten(cache)
        again = py_pytree.tree_unflatten(leaves, spec)
        assert py_pytree.treespec_loads(py_pytree.treespec_dumps(spec)) == spec
    assert all(a is b for a, b in zip(again.states, cache.states, strict=True))
    assert again.settings == cache.settings


def test_an_adapter_of_ones_own_is_used(monkeypatch):
    monkeypatch.setattr(register, "_ADAPTED", {})
    made = register.Node(
        OwnCache, lambda c: (c.states, None), lambda s, _: OwnCache(), lambda c: (keyed("ab", c.states), None), "own"
    )
    register_cache_adapter(OwnCache, made)
    with register_flattening_functions(patch_transformers=False):
        assert len(py_pytree.tree_leaves(OwnCache())) == 2


def test_safe_globals_are_what_they_were():
    known = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals([Box])
    with register_flattening_functions():
        assert probes.cache_class("DynamicCache") in torch.serialization.get_safe_globals()
    assert Box in torch.serialization.get_safe_globals()
    assert probes.cache_class("DynamicCache") not in torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(known)


def test_a_pickled_cache_loads_safely_inside():
    if isinstance(dynamic_cache(), torch.nn.Module):
        pytest.skip("caches were modules until 4.49, which pickle otherwise")
    file = io.BytesIO()
    torch.save(dynamic_cache(), file)
    file.seek(0)
    with register_flattening_functions():
        loaded = torch.load(file, weights_only=True)
    assert loaded.get_seq_length() == 3


def test_model_outputs_keep_whatever_they_hold():
    from transformers.modeling_outputs import BaseModelOutput

    with register_flattening_functions():
        odd = BaseModelOutput(last_hidden_state=torch.ones(1), attentions=(torch.zeros(1), torch.ones(2)))
        mapped = py_pytree.tree_map(lambda tensor: [("pair", tensor.shape)], odd)
        assert type(mapped) is BaseModelOutput
        assert list(mapped) == ["last_hidden_state", "attentions"]
        assert mapped.last_hidden_state == [("pair", torch.Size([1]))]
        assert mapped.hidden_states is None
        paths = [py_pytree.keystr(path) for path, _ in py_pytree.tree_flatten_with_path(odd)[0]]
    assert paths == ["['last_hidden_state']", "['attentions'][0]", "['attentions'][1]"]


def test_importing_registers_and_imports_nothing():
    script = (
        "import sys, torch, torch.utils._pytree as p; before = dict(p.SUPPORTED_NODES); import kvconform\n"
        "assert 'transformers' not in sys.modules and before == p.SUPPORTED_NODES\n"
        "kvconform.register_flattening_functions; assert 'transformers' not in sys.modules"
    )
    source = str(Path(kvconform.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": source}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


# ---------------------------------------------------------------------------------------------- errors

layered_only = pytest.mark.skipif(not probes.has_layers(), reason="this release keeps its caches as lists")


@layered_only
def test_an_unknown_layer_names_class_release_and_call():
    class StrangeLayer(probes.cache_class("DynamicLayer")):
        pass

    cache = dynamic_cache()
    cache.layers[0].__class__ = StrangeLayer
    with register_flattening_functions(), pytest.raises(UnknownLayerError) as caught:
        py_pytree.tree_flatten(cache)
    message = str(caught.value)
    for part in ("StrangeLayer", "transformers", torch.__version__, "kvconform.register_layer(StrangeLayer, code=...)"):
        assert part in message


def test_a_leaf_count_that_does_not_fit_is_refused():
    cache = dynamic_cache()
    leaves, context = kvconform.flatten_cache(cache)
    with pytest.raises(CacheStructureError, match=r"has 4 leaves, got 3: unflatten with"):
        kvconform.unflatten_cache(type(cache), leaves[:3], context)


@pytest.mark.parametrize(
    "context",
    [
        ["key_D_1", "value_D_1"],
        ["key_D_0", "value_D_0", "#!"],
        ["key_D_0", "value_D_0", "#5.past"],
        ["key_D_0", "key_D_0"],
        ["key_D_0", "value_W4_0"],
    ],
)
def test_a_context_that_no_flatten_wrote_is_refused(context):
    if not probes.has_layers() and context[0] == "key_D_0":
        context = context[:1]
    with pytest.raises(CacheStructureError):
        kvconform.unflatten_cache(probes.cache_class("DynamicCache"), [torch.ones(1, 1, 1, 1)] * 2, context)


@layered_only
def test_a_code_that_the_release_lacks_is_refused():
    with pytest.raises(UnknownLayerError, match=r"code ZZ .*load it with a release that has the class"):
        kvconform.unflatten_cache(probes.cache_class("DynamicCache"), [torch.ones(1)] * 2, ["key_ZZ_0", "value_ZZ_0"])


def test_an_attribute_that_is_no_json_is_refused_by_name():
    cache = dynamic_cache()
    cache.odd = iter(())
    with pytest.raises(UnknownLayerError, match=r"DynamicCache\.odd is a .*tuple_iterator.*register_cache_adapter"):
        kvconform.flatten_cache(cache)


def test_a_context_names_classes_and_runs_no_code():
    context = ['#odd={"class":"os:system"}']
    with pytest.raises(CacheStructureError, match="does not exist here"):
        kvconform.unflatten_cache(probes.cache_class("DynamicCache"), [], context)


def test_transformers_missing_says_what_to_do(monkeypatch):
    probes.transformers_cache_utils.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "transformers.cache_utils", None)
    try:
        with pytest.raises(kvconform.MissingTransformersError, match="pip install transformers"):
            probes.transformers_cache_utils()
    finally:
        monkeypatch.undo()
        probes.transformers_cache_utils.cache_clear()


def test_a_class_that_stands_in_for_its_base_is_left_alone():
    from transformers.cache_utils import DynamicCache

    # What torch.export of 2.5 makes of a module that it reads attributes of, as caches were until 4.48.
    stand_in = type("DynamicCache", (DynamicCache,), {"__module__": DynamicCache.__module__})
    with register_flattening_functions(patch_transformers=True):
        assert stand_in not in py_pytree.SUPPORTED_NODES
        spec = py_pytree.tree_structure(DynamicCache())
        assert py_pytree.treespec_loads(py_pytree.treespec_dumps(spec)) == spec
