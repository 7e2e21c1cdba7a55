"""Layer classes that live with their models: each of a release is known, and a context names no other class."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as py_pytree

from kvconform import learned, probes, register_flattening_functions, register_layer
from kvconform.errors import CacheStructureError, UnknownLayerError
from kvconform.layers import layer_kinds, model_layers, reading
from tests.library.layers.model_of_a_layer import FAKE, SOURCE, again, cache_of, fake, spec_of

pytestmark = pytest.mark.skipif(not probes.has_layers(), reason="this release keeps its caches as lists")

__all__ = ["fake"]

# ----------------------------------------------------------------------------------------- the classes of the release

# Not known, each with its reason. Whatever else a release has is.
REFUSED: dict[str, str] = {}
_ROOTS = ("CacheLayerMixin", "Cache")


def sources():
    root = Path(importlib.import_module("transformers").__file__).parent
    for file in [root / "cache_utils.py", *sorted((root / "models").glob("*/*.py"))]:
        text = file.read_text(encoding="utf-8")
        # A modular file is what a modeling file is generated from; nothing imports it.
        if not file.name.startswith("modular_") and ("Layer" in text or "Cache" in text):
            yield ".".join(["transformers", *file.relative_to(root).with_suffix("").parts]), text


@functools.cache
def classes_by_text():
    """`module:Name` of each class of the release that descends from a layer or a cache, found without an import."""
    bases: dict[str, set[str]] = {}
    places: dict[str, list[str]] = {}
    for module, text in sources():
        if "cache_utils" not in text and module != "transformers.cache_utils":
            continue
        for name, found in re.findall(r"^class (\w+)\(([^)]*)\)", text, re.MULTILINE):
            places.setdefault(name, []).append(f"{module}:{name}")
            bases.setdefault(name, set()).update(re.findall(r"\w+", found))
    known = {*_ROOTS}
    while more := {name for name, found in bases.items() if found & known} - known:
        known |= more
    return sorted(place for name in known for place in places.get(name, []))


def looked_up(place):
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("place", classes_by_text() if probes.has_layers() else [])
def test_each_layer_and_cache_class_of_the_release_is_known(place):
    """A new release that brings a class which nothing explains fails here, by the name of the class."""
    cls = looked_up(place)
    if getattr(cls, "__abstractmethods__", None) or cls.__name__ in {"Cache", "QuantizedLayer"}:
        return
    if issubclass(cls, probes.cache_class("Cache")):
        with register_flattening_functions():
            assert cls in py_pytree.SUPPORTED_NODES
        return
    if place in REFUSED:
        with pytest.raises(UnknownLayerError):
            layer_kinds.model_of(cls)
        return
    model = layer_kinds.model_of(cls)
    assert model.cls is cls
    assert bool(model.reference) == place.startswith("transformers.models.")


def test_the_search_finds_classes_in_both_places():
    found = classes_by_text()
    assert "transformers.cache_utils:DynamicLayer" in found
    assert "transformers.cache_utils:DynamicCache" in found


# ------------------------------------------------------------------------------------------------- look-alike classes


def test_the_context_names_the_class_after_the_code_of_its_base(fake):
    with register_flattening_functions():
        context = spec_of(cache_of(fake.FakeLayer)).context
    assert context[:4] == ["key_D_0", "value_D_0", "key_MD_1", "value_MD_1"]
    assert f'#1.class="{FAKE}:FakeLayer"' in context
    leaves = [name for name in context if not name.startswith("#")]
    assert leaves[4:] == [
        *("buffers.own_MD_1", "buffers.index_MD_1", "entries.own_MD_1", "entries.index_MD_1"),
        *("extra_MD_1", "pair.0_MD_1", "pair.1_MD_1", "seen_MD_1"),
    ]
    assert {"#1.rate=4", '#1.kind="compressed"'} < set(context)


def test_a_round_trip_loses_nothing(fake):
    with register_flattening_functions():
        for tokens in (1, 5):
            cache = cache_of(fake.FakeLayer, tokens)
            found = again(cache)
            states = torch.ones(1, 2, 2, 4)
            for one in (cache, found):
                one.update(states, states, 1)
            assert torch.equal(cache.layers[1].total(), found.layers[1].total())
            assert found.layers[1].entries == cache.layers[1].entries


def test_a_layer_that_holds_nothing_comes_back(fake):
    cache = cache_of(fake.FakeLayer)
    cache.layers[1] = fake.FakeLayer()
    with register_flattening_functions():
        found = again(cache).layers[1]
    assert found.keys is None
    assert (found.entries, found.seen, found.buffers) == ({"own": 0, "index": 0}, 0, {"own": None, "index": None})


def test_the_structure_is_one_for_all_lengths(fake):
    @given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 7))
    def ask(one, two, layers):
        assert spec_of(cache_of(fake.FakeLayer, one, layers)) == spec_of(cache_of(fake.FakeLayer, two, layers))

    with register_flattening_functions():
        ask()


def test_a_count_in_the_context_would_tell_the_length(fake, monkeypatch):
    """The planted fault of the test above."""
    monkeypatch.setattr(model_layers, "numbers_that_change", lambda *_: (frozenset(), frozenset()))
    with register_flattening_functions():
        assert spec_of(cache_of(fake.FakeLayer, 3)) != spec_of(cache_of(fake.FakeLayer, 5))


def test_only_numbers_that_a_function_writes_change(fake):
    stored, inside = model_layers.numbers_that_change(fake.FakeLayer, probes.cache_class("DynamicLayer"))
    assert {"seen", "extra"} <= stored
    assert not {"rate", "kind"} & stored
    assert "entries" in inside


def test_what_no_rule_explains_is_refused_by_name(fake):
    cache = cache_of(fake.FakeLayer)
    cache.layers[1].odd = iter([])
    with register_flattening_functions(), pytest.raises(UnknownLayerError, match=r"odd is a builtins\.list_iterator"):
        py_pytree.tree_flatten(cache)


def test_a_class_outside_of_the_models_is_refused(fake):
    del fake
    cls = type("Elsewhere", (probes.cache_class("DynamicLayer"),), {"__module__": __name__})
    with register_flattening_functions(), pytest.raises(UnknownLayerError, match="Elsewhere is a cache layer"):
        py_pytree.tree_flatten(cache_of(cls))


def test_a_class_that_its_module_does_not_have_is_refused(fake):
    """A context could not name it."""
    cls = type("Hidden", (probes.cache_class("DynamicLayer"),), {"__module__": FAKE})
    assert not hasattr(fake, "Hidden")
    with register_flattening_functions(), pytest.raises(UnknownLayerError, match="Hidden is a cache layer"):
        py_pytree.tree_flatten(cache_of(cls))


def test_a_code_that_a_user_gave_wins_and_old_contexts_are_read(fake, monkeypatch):
    monkeypatch.setattr(layer_kinds, "_OWN", {})
    with register_flattening_functions():
        leaves, old = py_pytree.tree_flatten(cache_of(fake.FakeLayer))
        register_layer(fake.FakeLayer, "MD")
        context = spec_of(cache_of(fake.FakeLayer)).context
        assert "key_MD_1" in context
        assert not any(text.startswith("#1.class=") for text in context)
        again(cache_of(fake.FakeLayer))
        found = py_pytree.tree_unflatten(leaves, old)
    assert type(found.layers[1]) is fake.FakeLayer


def test_a_module_that_is_imported_inside_is_learnt_and_known_to_the_unpickler(monkeypatch, tmp_path):
    name = "transformers.models.late_fake"
    (tmp_path / "late_fake.py").write_text(SOURCE, encoding="utf-8")
    models = importlib.import_module("transformers.models")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    try:
        with register_flattening_functions():
            late = importlib.import_module(name)
            assert late.FakeLayer in learned.LAYERS
            assert late.FakeLayer in torch.serialization.get_safe_globals()
        assert late.FakeLayer not in torch.serialization.get_safe_globals()
    finally:
        sys.modules.pop(name, None)
        learned.reset()


# ------------------------------------------------------------------------------------------- contexts of strangers


def read(context):
    return reading.unflatten(probes.cache_class("DynamicCache"), [torch.ones(1, 1, 1, 1)] * 2, context)


@pytest.mark.parametrize(
    "reference",
    [
        '"D"',
        '""',
        '"os:path"',
        '"antigravity:fly"',
        '"builtins:dict"',
        '"transformers.cache_utils:DynamicLayer"',
        '"transformers.models:fake"',
        '"transformers.models.fake.modeling_fake:FakeLayer.update"',
        '"transformers.models..fake:FakeLayer"',
        '"transformers.modelsx.fake:FakeLayer"',
        '"transformers.models.fake.modeling_fake:torch"',
        '"transformers.models.fake.modeling_fake:NoLayer"',
        '"transformers.models.fake.modeling_fake:DynamicLayer"',
        '"transformers.models.fake.modeling_fake:Missing"',
        '"transformers.models.fake.nowhere:FakeLayer"',
        '"transformers.models.fake.modeling_nowhere:FakeLayer"',
        '"transformers.models.llama.convert_llama_weights_to_hf:write_model"',
        '"transformers.models.fake.modeling_fake:FakeLayer\\n"',
        "3",
        "null",
        "no JSON",
        '["transformers.models.fake.modeling_fake:FakeLayer"]',
    ],
)
def test_a_context_names_a_layer_of_a_model_or_is_refused(fake, reference):
    del fake
    context = ["key_MD_0", "value_MD_0", f"#0.class={reference}"]
    before = {*sys.modules}
    with register_flattening_functions(), pytest.raises(CacheStructureError):
        read(context)
    assert {*sys.modules} == before


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (["key_MW4_0", "value_MW4_0", f'#0.class="{FAKE}:FakeLayer"'], "has MD here"),
        (["key_D_0", "value_D_0", f'#0.class="{FAKE}:FakeLayer"'], "has MD here"),
        (["key_MD_0", "value_MD_0", f'#0.class="{FAKE}:FakeLayer"', '#0.class="x"'], "a second class"),
        (["key_D_0", "value_D_0", f'#1.class="{FAKE}:FakeLayer"'], "does not have"),
    ],
)
def test_a_class_that_does_not_fit_its_code_is_refused(fake, context, message):
    del fake
    with register_flattening_functions(), pytest.raises(CacheStructureError, match=message):
        read(context)
