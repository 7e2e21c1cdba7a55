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
    #1.-name                    an attribute that a new layer has and this one lacks
    #offloading=true            the same for the cache itself; its leaves are called by their attribute

What follows from the tensors (dtype, device, sizes, the length of a growing layer) is in neither: it is derived
when the cache is rebuilt, so that a cache whose leaves moved to another device has moved.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from kvconform import probes
from kvconform.errors import CacheStructureError
from kvconform.layers import FROM_CONFIG, LayerModel, derived, length_of, model_by_code, model_of
from kvconform.state import LEAF, Reader, Writer, attributes, dumps, in_order, loads

__all__ = ["flatten", "unflatten"]

COUNTERS = frozenset({"cumulative_length", "cumulative_length_int", "_seen_tokens", "erased_length"})
"""Attributes that count tokens. They are derived or leaves, never context (rule: a spec never tells a length)."""

_STANDARD = {"keys": "key", "values": "value"}
_ATTRIBUTE = {name: attribute for attribute, name in _STANDARD.items()}
_LEAF_ENTRY = re.compile(r"(?P<name>.+)_(?P<letters>[A-Z]+)(?P<number>\d*)_(?P<index>\d+)")
_EMPTY_ENTRY = re.compile(r"#(?P<letters>[A-Z]+)(?P<number>\d*)_(?P<index>\d+)")
_FACT = re.compile(r"#(?:(?P<index>\d+)\.)?(?P<name>-?[A-Za-z_]\w*)(?:=(?P<value>.*))?", re.DOTALL)


def flatten(cache: Any) -> tuple[list[Any], list[str]]:
    """Children and context of a cache.

    Raises:
        UnknownLayerError: a layer class or an attribute that nothing describes.
    """
    quick = _flatten_standard(cache)
    if quick is not None:
        return quick
    writer = Writer(cache)
    context: list[str] = []
    for index, layer in enumerate(vars(cache).get("layers", ())):
        context += _write_layer(writer, layer, index)
    context += _write_cache(writer, cache)
    return writer.leaves, context


def unflatten(cls: type, leaves: Any, context: list[str]) -> Any:
    """The cache of class `cls` with these leaves.

    Raises:
        CacheStructureError: the leaves or the context are not of one structure.
    """
    plan = _plan(cls, tuple(context))
    leaves = leaves if isinstance(leaves, list) else list(leaves)
    if len(leaves) != plan.count:
        raise CacheStructureError(
            f"{cls.__name__} of structure {context} has {plan.count} leaves, got {len(leaves)}: "
            "unflatten with the leaves and the context of one flatten"
        )
    cache = cls.__new__(cls)
    cache.__dict__.update(plan.read(cache, leaves))
    return cache


# ---------------------------------------------------------------------------------------------- writing


def _flatten_standard(cache: Any) -> tuple[list[Any], list[str]] | None:
    """The common case, fast: growing layers below their windows, nothing out of the ordinary. None for all else."""
    state = cache.__dict__
    defaults = _defaults(type(cache))
    if defaults is None or len(state) != len(defaults) + 1:
        return None
    for name, value in defaults.items():
        if state.get(name, LEAF) is not value and not same(state.get(name, LEAF), value):
            return None
    leaves: list[Any] = []
    codes: list[tuple[str, Any]] = []
    for layer in state["layers"]:
        code = _standard_code(layer.__dict__, model_of(type(layer)))
        if code is None:
            return None
        codes.append(code)
        leaves += (layer.keys, layer.values)
    return leaves, _standard_context(tuple(codes)).copy()


def _standard_code(state: dict[str, Any], model: LayerModel) -> tuple[str, Any] | None:
    """Code and number of a layer that its keys and values describe wholly."""
    if model.code not in ("D", "W") or len(state) != len(model.ready):
        return None
    keys = state.get("keys")
    if type(keys) is not torch.Tensor or type(state.get("values")) is not torch.Tensor:
        return None
    for name, value in state.items():
        if name in ("keys", "values"):
            continue
        if name == "dtype":
            same = value is keys.dtype
        elif name == "device":
            same = value == keys.device
        elif name == "cumulative_length":
            same = type(value) is int and value == length_of(keys)
        else:
            same = name in (model.config, "_sliding_window_tensor") or model.ready.get(name, LEAF) is value
        if not same:
            return None
    return model.code, "" if model.config is None else state[model.config]


@lru_cache(maxsize=4096)
def _standard_context(codes: tuple[tuple[str, Any], ...]) -> list[str]:
    return [f"{kind}_{code}{number}_{i}" for i, (code, number) in enumerate(codes) for kind in ("key", "value")]


def _write_layer(writer: Writer, layer: Any, index: int) -> list[str]:
    model = model_of(type(layer))
    state = vars(layer)
    suffix = f"_{model.code_of(state)}_{index}"
    ready = state.get("keys") is not None
    start = len(writer.names)
    facts = [] if ready else [f"#{suffix[1:]}"]
    if ready:
        for attribute, name in _STANDARD.items():
            writer.leaf(name + suffix, state[attribute])
    base = model.ready if ready else model.fresh
    for name, value in in_order(state):
        if name not in _STANDARD and name != model.config and not _follows(name, value, state, base, ready=ready):
            facts += _write_attribute(writer, f"{index}.", name, value, suffix)
            facts += _past(index, name, value, state, model)
    facts += [f"#{index}.-{name}" for name in base if name not in state]
    return writer.names[start:] + facts


def _write_cache(writer: Writer, cache: Any) -> list[str]:
    start = len(writer.names)
    state = attributes(cache)
    defaults = _defaults(type(cache)) or {}
    facts = []
    for name, value in in_order(state):
        if name != "layers" and not (name in defaults and same(defaults[name], value)):
            facts += _write_attribute(writer, "", name, value, "")
    # transformers' EncoderDecoderCache has no layers of its own.
    facts += [f"#-{name}" for name in ("layers", *defaults) if name not in state]
    return writer.names[start:] + facts


def _write_attribute(writer: Writer, prefix: str, name: str, value: Any, suffix: str) -> list[str]:
    if name in COUNTERS and type(value) is int:
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
        if _grows(base):
            return probes.statically_equal(value, length_of(state.get("keys")))
        return not ready and same(base.get(name, LEAF), value)
    if name in base and (ready or name in FROM_CONFIG):
        implied = derived(name, state, state.get("keys"))
        if implied is not NotImplemented:
            return implied is None or same(implied, value)
    return not isinstance(value, torch.Tensor) and name in base and same(base[name], value)


def _grows(base: dict[str, Any]) -> bool:
    """Whether the length of such a layer's keys is the number of tokens it has seen (below its window)."""
    return "max_cache_len" not in base and "_quantized_keys" not in base


def _past(index: int, name: str, value: Any, state: dict[str, Any], model: LayerModel) -> list[str]:
    """The fact that tells a static layer past its window from one below: they take different paths when exported."""
    if name not in COUNTERS or isinstance(value, torch.Tensor) or "max_cache_len" not in state or model.config is None:
        return []
    return [f"#{index}.past"] if value >= state["max_cache_len"] else []


def same(left: Any, right: Any) -> bool:
    """Equality that tells 1 from True and never guards on a symbol."""
    if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
        return left is right or (
            isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor) and left.dim() == right.dim() == 0
            and left.device == right.device
        )
    if isinstance(left, torch.SymInt) or isinstance(right, torch.SymInt):
        return probes.statically_equal(left, right)
    return type(left) is type(right) and bool(left == right)


@lru_cache(maxsize=None)
def _defaults(cls: type) -> dict[str, Any] | None:
    """Attributes of a new cache that is made without arguments, its layers aside. None if it takes some."""
    with torch.utils._python_dispatch._disable_current_modes():
        try:
            made = cls()
        except (TypeError, RuntimeError, ValueError, AssertionError):
            # StaticCache wants a config; what it has in common with the base class (4.56 and later) is known from there.
            return None if cls is probes.cache_class("Cache") else _base_defaults()
    return {name: value for name, value in attributes(made).items() if name != "layers"}


def _base_defaults() -> dict[str, Any] | None:
    try:
        made = probes.cache_class("Cache")(layers=[])  # type: ignore[misc]
    except TypeError:
        return None
    return {name: value for name, value in attributes(made).items() if name != "layers"}


# ---------------------------------------------------------------------------------------------- reading


@dataclass
class _LayerPlan:
    """How one layer is rebuilt from its share of the leaves."""

    model: LayerModel
    number: int | None
    ready: bool
    attributes: list[str] = field(default_factory=list)
    facts: list[tuple[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def read(self, cache: Any, leaves: Iterator[Any]) -> Any:
        state = self.model.base(ready=self.ready)
        nested: list[Any] = []
        given = set()
        for name in self.attributes:
            leaf = next(leaves)
            if "." in name:
                nested.append(leaf)
            else:
                state[name] = leaf
                given.add(name)
        reader = Reader(cache, iter(nested))
        for name, written in self.facts:
            state[name] = reader.read(written)
            given.add(name)
        for name in self.missing:
            state.pop(name, None)
        if self.model.config is not None:
            state[self.model.config] = self.number
        self._derive(state, given)
        layer = self.model.cls.__new__(self.model.cls)
        layer.__dict__.update(state)
        return layer

    def _derive(self, state: dict[str, Any], given: set[str]) -> None:
        for name in state:
            if name in given or name in _STANDARD or not (self.ready or name in FROM_CONFIG):
                continue
            if name in COUNTERS and _grows(self.model.ready) and not isinstance(state[name], torch.Tensor):
                state[name] = length_of(state["keys"])
            else:
                value = derived(name, state, state.get("keys"))
                if value is not NotImplemented:
                    state[name] = value


@dataclass
class _Plan:
    """How a cache is rebuilt."""

    count: int
    layers: list[_LayerPlan]
    defaults: dict[str, Any]
    attributes: list[str]
    facts: list[tuple[str, Any]]
    missing: list[str]

    def read(self, cache: Any, leaves: list[Any]) -> dict[str, Any]:
        it = iter(leaves)
        state: dict[str, Any] = {"layers": [layer.read(cache, it) for layer in self.layers]}
        state.update(copy.deepcopy(self.defaults))
        nested = []
        for name in self.attributes:
            leaf = next(it)
            if "." in name:
                nested.append(leaf)
            else:
                state[name] = leaf
        reader = Reader(cache, iter(nested))
        for name, written in self.facts:
            state[name] = reader.read(written)
        for name in self.missing:
            state.pop(name, None)
        return state


@lru_cache(maxsize=4096)
def _plan(cls: type, context: tuple[str, ...]) -> _Plan:
    layers: dict[int, _LayerPlan] = {}
    plan = _Plan(0, [], dict(_defaults(cls) or {}), [], [], [])
    for entry in context:
        _read_entry(entry, layers, plan)
    if sorted(layers) != list(range(len(layers))):
        raise CacheStructureError(f"the context {list(context)} skips a layer: pass the context of a flatten")
    plan.layers = [layers[i] for i in range(len(layers))]
    plan.count = len(plan.attributes) + sum(len(layer.attributes) for layer in plan.layers)
    return plan


def _read_entry(entry: str, layers: dict[int, _LayerPlan], plan: _Plan) -> None:
    if not entry.startswith("#"):
        match = _LEAF_ENTRY.fullmatch(entry)
        if match is None:
            plan.attributes.append(entry)
        else:
            name = match["name"]
            # A leaf that comes first in its layer makes it; static layers without tensors begin with `#`.
            _layer(match, layers, ready=True).attributes.append(_ATTRIBUTE.get(name, name))
        return
    if (match := _EMPTY_ENTRY.fullmatch(entry)) is not None:
        _layer(match, layers, ready=False).ready = False
        return
    match = _FACT.fullmatch(entry)
    if match is None:
        raise CacheStructureError(f"{entry!r} is no entry of a cache's context: pass the context of a flatten")
    target: Any = plan if match["index"] is None else layers[int(match["index"])]
    if match["name"].startswith("-"):
        target.missing.append(match["name"][1:])
    elif match["value"] is not None:
        target.facts.append((match["name"], loads(match["value"])))


def _layer(match: re.Match[str], layers: dict[int, _LayerPlan], *, ready: bool) -> _LayerPlan:
    index = int(match["index"])
    if index not in layers:
        number = int(match["number"]) if match["number"] else None
        layers[index] = _LayerPlan(model_by_code(match["letters"]), number, ready)
    return layers[index]
