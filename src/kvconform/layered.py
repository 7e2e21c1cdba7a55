"""Caches that are a list of layers: transformers 4.54 and later.

The context is a list of text, one entry a leaf in leaf order, and one entry a fact that no leaf tells:

    key_D_0, value_D_0          keys and values of layer 0, a DynamicLayer (codes: kvconform.layers)
    key_W4_1, value_W4_1        layer 1, a DynamicSlidingWindowLayer with a window of 4, below its window
    cumulative_length_W4_1      its counter, a leaf of its own once the layer is past its window
    conv_states.0_L_2           a leaf inside a container; the fact below says where
    #2.conv_states={"dict":[[0,{"@":0}]]}
    #W4_3                       layer 3 exists and holds nothing yet
    #1.past                     a static layer past its window: another structure than below it
    #1.record_past=true         an attribute whose value is not the one a new layer has
    #1.max_batch_size           one that a new layer lacks, and that follows from the tensors
    #1.-name                    an attribute that a new layer has and this one lacks
    #offloading=true            the same for the cache itself; its leaves are called by their attribute
    #max_batch_size             the same for a cache that has states and no layers (MambaCache until 5.x)

What follows from the tensors (dtype, device, sizes, the length of a growing layer) is in neither: it is derived
when the cache is rebuilt, so that a cache whose leaves moved to another device has moved.
"""

from __future__ import annotations

from typing import Any

import torch

from kvconform import probes, quick
from kvconform.classes import are_unused, defaults_of, is_compileable, settings_of, tells_compileable
from kvconform.layers import (
    COUNTERS,
    FROM_CONFIG,
    LayerModel,
    code_of,
    derived,
    grows,
    is_derived,
    length_of,
    model_of,
    reference_of,
)
from kvconform.state import LEAF, Writer, attributes, dumps, in_order, same

__all__ = ["flatten"]

_STANDARD = {"keys": "key", "values": "value"}


def flatten(cache: Any) -> tuple[list[Any], list[str]]:
    """Children and context of a cache.

    Raises:
        UnknownLayerError: a layer class or an attribute that nothing describes.
    """
    layers = _own_layers(cache)
    found = None if torch.compiler.is_dynamo_compiling() else quick.flatten_layers(layers)
    if found is not None and _is_default(cache):
        return found
    writer = Writer(cache)
    if found is not None:
        writer.leaves, standard = found
        return writer.leaves, standard + _write_cache(writer, cache)
    context: list[str] = []
    for index, layer in enumerate(layers):
        context += _write_layer(writer, layer, index)
    context += _write_cache(writer, cache)
    return writer.leaves, context


def _own_layers(cache: Any) -> Any:
    # EncoderDecoderCache has none that it uses (its property of that name is not in vars).
    layers = vars(cache).get("layers")
    return () if layers is None or are_unused(type(cache), layers) else layers


def _is_default(cache: Any) -> bool:
    """Whether a cache is nothing but its layers."""
    defaults = defaults_of(type(cache))
    state = cache.__dict__
    if len(state) != len(defaults) + 1 or "layers" not in state or not COUNTERS.isdisjoint(state):
        return False
    for name, value in defaults.items():
        if name not in state or not (state[name] is value or same(state[name], value)):
            return False
    return True


def _write_layer(writer: Writer, layer: Any, index: int) -> list[str]:
    model = model_of(type(layer))
    state = vars(layer)
    suffix = f"_{code_of(model, state)}_{index}"
    ready = state.get("keys") is not None
    start = len(writer.names)
    facts = [] if ready else [f"#{suffix[1:]}"]
    if ready:
        for attribute, name in _STANDARD.items():
            writer.leaf(name + suffix, state[attribute])
    base = model.ready if ready else model.fresh
    told = {model.config, *(_STANDARD if ready else ())}
    for name, value in in_order(state, type(layer)):
        if name in told or _follows(name, value, state, base, ready=ready):
            continue
        if name not in base and _is_implied(name, value, state):
            facts.append(f"#{index}.{name}")
        else:
            facts += _write_attribute(writer, f"{index}.", name, value, suffix)
            facts += _past(index, name, value, state, model)
    facts += [f"#{index}.-{name}" for name in base if name not in state]
    return writer.names[start:] + facts


def _write_cache(writer: Writer, cache: Any) -> list[str]:
    start = len(writer.names)
    state = attributes(cache)
    settings = settings_of(type(cache), state.get("layers"))
    usual = {**defaults_of(type(cache)), **settings}
    facts = []
    for name, value in in_order(state, type(cache)):
        # A counter is a leaf at 0 too: a step later it is not 0, and the structure must be the same.
        if name == "layers" or (name in usual and name not in COUNTERS and same(usual[name], value)):
            continue
        if name == "is_compileable" and tells_compileable(type(cache)) and same(is_compileable(state), value):
            continue
        if name not in usual and _is_implied(name, value, state):
            facts.append(f"#{name}")
        elif name == "layer_init_kwargs" and settings:
            facts.append(_write_arguments(writer, value, settings[name]))
        else:
            facts += _write_attribute(writer, "", name, value, "")
    listed = () if are_unused(type(cache), state.get("layers")) else ("layers",)
    facts += [f"#-{name}" for name in (*listed, *usual) if name not in state]
    return writer.names[start:] + facts


def _write_arguments(writer: Writer, arguments: dict[str, Any], known: dict[str, Any]) -> str:
    """The arguments with which 4.54 and 4.55 make layers, without those that the tensors of the first one tell."""
    pairs = [
        [name, {"known": name} if name in known and same(known[name], value) else writer.write(name, value)]
        for name, value in arguments.items()
    ]
    return f"#layer_init_kwargs={dumps({'dict': pairs})}"


def _write_attribute(writer: Writer, prefix: str, name: str, value: Any, suffix: str) -> list[str]:
    if name in COUNTERS:
        # Whatever stands there: torch.export wraps int leaves in a type of its own while it looks at dynamic shapes.
        written: Any = writer.leaf(name + suffix, value)
    else:
        written = writer.write(name, value, suffix)
    # A leaf whose name says where it belongs needs no fact.
    return [] if written is LEAF else [f"#{prefix}{name}={dumps(written)}"]


def _follows(name: str, value: Any, state: dict[str, Any], base: dict[str, Any], *, ready: bool) -> bool:
    """Whether an attribute of a layer follows from its tensors, its code or its class.

    A counter of a layer that grows follows from the shape as long as it agrees with it, which is below the window.
    """
    if name in COUNTERS and not isinstance(value, torch.Tensor):
        if not isinstance(value, (int, torch.SymInt)):
            return False
        if grows(base):
            return probes.statically_equal(value, length_of(state.get("keys")))
        return not ready and same(base.get(name, LEAF), value)
    reference = reference_of(state)
    if name in base and is_derived(name) and (name in FROM_CONFIG or reference is not None):
        implied = derived(name, state, reference)
        return implied is None or same(implied, value) or _same_constant(implied, value)
    return not isinstance(value, torch.Tensor) and name in base and same(base[name], value)


def _is_implied(name: str, value: Any, state: dict[str, Any]) -> bool:
    """Whether an attribute that a new layer or cache lacks has the value that follows from the tensors.

    It may be somebody's own of the same name: without tensors nothing follows, and another value is written.
    """
    reference = reference_of(state)
    return reference is not None and is_derived(name) and same(derived(name, state, reference), value)


def _same_constant(implied: Any, value: Any) -> bool:
    """Whether a number kept as a tensor is the one that follows: its value would be a guard, its place is not."""
    if not isinstance(implied, torch.Tensor) or not isinstance(value, torch.Tensor):
        return False
    return implied.dim() == value.dim() == 0 and implied.device == value.device


def _past(index: int, name: str, value: Any, state: dict[str, Any], model: LayerModel) -> list[str]:
    """The fact that tells a static layer past its window from one below: they take different paths when exported."""
    if name not in COUNTERS or isinstance(value, torch.Tensor) or "max_cache_len" not in state or model.config is None:
        return []
    # torch.export's wrapper of an int leaf has the number in `val`.
    count = getattr(value, "val", value)
    return [f"#{index}.past"] if isinstance(count, (int, torch.SymInt)) and count >= state["max_cache_len"] else []
