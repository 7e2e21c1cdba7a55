"""How a cache that is a list of layers becomes leaves and a context (the grammar: `kvconform.context`).

What follows from the tensors (dtype, device, sizes, the length of a growing layer) is in neither: it is derived when
the cache is rebuilt, so that a cache whose leaves moved to another device has moved.
"""

from __future__ import annotations

from typing import Any

import torch

from kvconform.attributes import attributes, in_order, same
from kvconform.context import CLASS, Absent, EmptyLayer, Fact, Follows, LayerLeaf, Past
from kvconform.layers import fast
from kvconform.layers.cache_kinds import are_unused, cache_model_of, values_from_parts
from kvconform.layers.layer_kinds import code_of, model_of
from kvconform.learned import LayerModel
from kvconform.origins import (
    COUNTERS,
    TENSORS_OF_A_LAYER,
    Origin,
    is_as_expected,
    origin_in_cache,
    origin_of,
    reference_of,
    tells_itself,
)
from kvconform.values import LEAF, Writer, dumps

__all__ = ["flatten"]


def flatten(cache: Any, *, counted: bool = False) -> tuple[list[Any], list[str]]:
    """Children and context of a cache.

    Args:
        cache: a list of layers, or a cache of caches.
        counted: whether a sliding layer has its counter as a leaf below its window too. Its structure is then one for
            all lengths; otherwise a layer below its window and one past it are two.

    Raises:
        UnknownLayerError: a layer class or an attribute that nothing describes.
    """
    layers = _own_layers(cache)
    found = None if torch.compiler.is_dynamo_compiling() else fast.flatten_layers(layers, counted=counted)
    if found is not None and _is_default(cache):
        return found
    writer = Writer(cache)
    if found is not None:
        writer.leaves, standard = found
        return writer.leaves, standard + _write_cache(writer, cache)
    context: list[str] = []
    for index, layer in enumerate(layers):
        context += _write_layer(writer, layer, index, counted=counted)
    context += _write_cache(writer, cache)
    return writer.leaves, context


def _own_layers(cache: Any) -> Any:
    # EncoderDecoderCache has none that it uses (its property of that name is not in vars).
    layers = vars(cache).get("layers")
    return () if layers is None or are_unused(type(cache), layers) else layers


def _is_default(cache: Any) -> bool:
    """Whether a cache is nothing but its layers."""
    model = cache_model_of(type(cache))
    defaults = model.defaults
    state = cache.__dict__
    if model.slotted or len(state) != len(defaults) + 1 or "layers" not in state or not COUNTERS.isdisjoint(state):
        return False
    for name, value in defaults.items():
        if name not in state or not (state[name] is value or same(state[name], value)):
            return False
    return True


def _write_layer(writer: Writer, layer: Any, index: int, *, counted: bool) -> list[str]:
    model = model_of(type(layer))
    state = attributes(layer)
    code = code_of(model, state)
    ready = state.get("keys") is not None
    filled = reference_of(state) is not None
    base = model.ready if ready else model.fresh
    start = len(writer.names)
    facts = [] if ready else [EmptyLayer.text(code, index)]
    facts += [Fact.text(index, CLASS, dumps(model.reference))] if model.reference else []
    if ready:
        writer.leaf(LayerLeaf.text("key", code, index), state["keys"])
        writer.leaf(LayerLeaf.text("value", code, index), state["values"])
    for name, value in in_order(state, type(layer)):
        if name == model.config or (ready and name in TENSORS_OF_A_LAYER):
            continue
        origin = origin_of(name, model, ready=ready, filled=filled)
        if origin is Origin.ABSENT and tells_itself(name, value, state):
            facts.append(Follows.text(index, name))
        elif (counted and ready and model.counts_a_window and name in COUNTERS) or not is_as_expected(
            origin, name, state, base
        ):
            suffix = LayerLeaf.text("", code, index)
            written = _write_value(writer, name, value, suffix, changing=_changes(model, name, value))
            facts += _fact(index, name, written)
            facts += [] if counted else _past(index, name, value, state, model)
    facts += [Absent.text(index, name) for name in base if name not in state]
    return writer.names[start:] + facts


def _changes(model: LayerModel, name: str, value: Any) -> bool:
    """Whether numbers in an attribute of a model's class can change with the tokens, so that they are leaves."""
    return name in (model.changing_inside if isinstance(value, (list, tuple, dict)) else model.changing)


def _write_cache(writer: Writer, cache: Any) -> list[str]:
    start = len(writer.names)
    state = attributes(cache)
    model = cache_model_of(type(cache))
    parts = values_from_parts(type(cache), state)
    expected = {**model.defaults, **parts}
    facts = []
    for name, value in in_order(state, type(cache)):
        if name == "layers":
            continue
        origin = origin_in_cache(name, model, parts)
        if origin is Origin.ABSENT and tells_itself(name, value, state):
            facts.append(Follows.text(None, name))
        elif (origin is Origin.DEFAULT or origin is Origin.PARTS) and same(expected[name], value):
            continue
        elif origin is Origin.PARTS and name == "layer_init_kwargs":
            facts.append(_write_arguments(writer, value, parts[name]))
        else:
            facts += _fact(None, name, _write_value(writer, name, value, ""))
    listed = () if are_unused(type(cache), state.get("layers")) else ("layers",)
    facts += [Absent.text(None, name) for name in (*listed, *expected) if name not in state]
    return writer.names[start:] + facts


def _write_arguments(writer: Writer, arguments: dict[str, Any], expected: dict[str, Any]) -> str:
    """The arguments with which 4.54 and 4.55 make layers, without those that the tensors of the first one determine."""
    pairs = [
        [name, {"known": name} if name in expected and same(expected[name], value) else writer.write(name, value)]
        for name, value in arguments.items()
    ]
    return Fact.text(None, "layer_init_kwargs", dumps({"dict": pairs}))


def _write_value(writer: Writer, name: str, value: Any, suffix: str, *, changing: bool = False) -> Any:
    if name in COUNTERS:
        # Whatever stands there: torch.export wraps int leaves in a type of its own while it looks at dynamic shapes.
        return writer.leaf(name + suffix, value)
    return writer.write(name, value, suffix, changing=changing)


def _fact(index: int | None, name: str, written: Any) -> list[str]:
    # A leaf whose name says where it belongs needs no fact.
    return [] if written is LEAF else [Fact.text(index, name, dumps(written))]


def _past(index: int, name: str, value: Any, state: dict[str, Any], model: LayerModel) -> list[str]:
    """The fact that tells a static layer past its window from one below: they take different paths when exported."""
    if name not in COUNTERS or isinstance(value, torch.Tensor) or "max_cache_len" not in state or model.config is None:
        return []
    # torch.export's wrapper of an int leaf has the number in `val`.
    count = getattr(value, "val", value)
    return [Past.text(index)] if isinstance(count, (int, torch.SymInt)) and count >= state["max_cache_len"] else []
