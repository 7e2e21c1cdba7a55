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

import re
from dataclasses import dataclass, field
from typing import Any

import torch

from kvconform import probes
from kvconform.errors import CacheStructureError
from kvconform.layers import FROM_CONFIG, LayerModel, code_of, derived, is_derived, length_of, model_by_code, model_of
from kvconform.state import LEAF, Reader, Writer, attributes, dumps, in_order, loads

__all__ = ["flatten", "unflatten"]

COUNTERS = frozenset({"cumulative_length", "cumulative_length_int", "_seen_tokens", "erased_length"})
"""Attributes that count tokens. They are derived or leaves, never context (rule: a spec never tells a length)."""

_DEFAULTS: dict[type, dict[str, Any]] = {}
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
    plan = _plan(cls, context)
    leaves = leaves if isinstance(leaves, list) else list(leaves)
    if len(leaves) != plan.count:
        raise CacheStructureError(
            f"{cls.__name__} of structure {context} has {plan.count} leaves, got {len(leaves)}: "
            "unflatten with the leaves and the context of one flatten"
        )
    cache = object.__new__(cls)
    assign(cache, _read(cache, plan, leaves))
    return cache


def assign(obj: Any, state: dict[str, Any]) -> None:
    """Give an object its attributes."""
    if torch.compiler.is_dynamo_compiling():
        # Dynamo follows setattr, not writes to __dict__.
        for name, value in state.items():
            setattr(obj, name, value)
    else:
        obj.__dict__.update(state)


# ---------------------------------------------------------------------------------------------- writing


def _flatten_standard(cache: Any) -> tuple[list[Any], list[str]] | None:
    """The common case, fast: growing layers below their windows, nothing out of the ordinary. None for all else."""
    defaults = _defaults(type(cache))
    state = cache.__dict__
    if len(state) != len(defaults) + 1:
        return None
    for name, value in defaults.items():
        if name not in state or not (state[name] is value or same(state[name], value)):
            return None
    leaves: list[Any] = []
    codes: list[str] = []
    for layer in state["layers"]:
        model = model_of(type(layer))
        if not _is_standard(layer.__dict__, model):
            return None
        codes.append(code_of(model, layer.__dict__))
        leaves.append(layer.keys)
        leaves.append(layer.values)
    if torch.compiler.is_dynamo_compiling():
        return leaves, [f"{kind}_{code}_{i}" for i, code in enumerate(codes) for kind in ("key", "value")]
    return leaves, list(_standard_context(tuple(codes)))


def _is_standard(state: dict[str, Any], model: LayerModel) -> bool:
    """Whether its keys and values describe a layer wholly."""
    if model.code not in ("D", "W") or len(state) != len(model.ready):
        return False
    keys = state["keys"]
    if not isinstance(keys, torch.Tensor) or not isinstance(state["values"], torch.Tensor):
        return False
    if "dtype" in state and (state["dtype"] is not keys.dtype or state["device"] != keys.device):
        return False
    if "cumulative_length" in state:
        count = state["cumulative_length"]
        # A symbol is left to the careful path, which asks for proof instead of guarding.
        if type(count) is not int or count != length_of(keys):
            return False
    for name, value in model.constants:
        if state[name] is not value:
            return False
    return True


@probes.constant
def _standard_context(codes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{kind}_{code}_{i}" for i, code in enumerate(codes) for kind in ("key", "value"))


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
    for name, value in in_order(state):
        if name not in _STANDARD and name != model.config and not _follows(name, value, state, base, ready=ready):
            facts += _write_attribute(writer, f"{index}.", name, value, suffix)
            facts += _past(index, name, value, state, model)
    facts += [f"#{index}.-{name}" for name in base if name not in state]
    return writer.names[start:] + facts


def _write_cache(writer: Writer, cache: Any) -> list[str]:
    start = len(writer.names)
    state = attributes(cache)
    defaults = _defaults(type(cache))
    facts = []
    for name, value in in_order(state):
        if name != "layers" and not (name in defaults and same(defaults[name], value)):
            facts += _write_attribute(writer, "", name, value, "")
    # transformers' EncoderDecoderCache has no layers of its own.
    facts += [f"#-{name}" for name in ("layers", *defaults) if name not in state]
    return writer.names[start:] + facts


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
    # torch.export's wrapper of an int leaf has the number in `val`.
    count = getattr(value, "val", value)
    return [f"#{index}.past"] if isinstance(count, (int, torch.SymInt)) and count >= state["max_cache_len"] else []


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


def _defaults(cls: type) -> dict[str, Any]:
    """Attributes of a new cache that is made without arguments, its layers aside. Empty if nothing is known."""
    # A plain table for the same reason as in kvconform.layers.model_of.
    defaults = _DEFAULTS.get(cls)
    return learn_cache(cls) if defaults is None else defaults


def learn_cache(cls: type) -> dict[str, Any]:
    """Try a cache class once."""
    with torch.utils._python_dispatch._disable_current_modes():
        try:
            made = cls()
        except (TypeError, RuntimeError, ValueError, AssertionError):
            # StaticCache wants a config; what it has in common with the base class (4.56 and later) is known from there.
            found = _base_defaults()
        else:
            found = {name: value for name, value in attributes(made).items() if name != "layers"}
    _DEFAULTS[cls] = found
    return found


def _base_defaults() -> dict[str, Any]:
    try:
        made = probes.cache_class("Cache")(layers=[])  # type: ignore[misc]
    except TypeError:
        return {}
    return {name: value for name, value in attributes(made).items() if name != "layers"}


# ---------------------------------------------------------------------------------------------- reading
# Plans are plain data and their readers plain functions: torch.export(strict=True) traces what is below.


@dataclass
class _LayerPlan:
    """How one layer is rebuilt from its share of the leaves.

    Attributes:
        letters: the code of its class. The class stays out: dynamo cannot guard on what it meets in a plan first.
        config: the attribute with the number in its code.
        number: that number.
        ready: whether it has tensors.
        attributes: one name a leaf; a name with a dot is inside a fact.
        facts: attributes and their JSON.
        missing: attributes that a new layer has and this one lacks.
        constants: attributes whose values a new layer has.
        implied: attributes that follow from the leaves.
        grows: whether its counter does.
    """

    letters: str
    config: str | None
    number: int | None
    ready: bool
    attributes: list[str] = field(default_factory=list)
    facts: list[tuple[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    constants: list[tuple[str, Any]] = field(default_factory=list)
    implied: list[str] = field(default_factory=list)
    grows: bool = False


@dataclass
class _Plan:
    """How a cache is rebuilt."""

    count: int = 0
    layers: list[_LayerPlan] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    facts: list[tuple[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    constants: list[tuple[str, Any]] = field(default_factory=list)


def _read(cache: Any, plan: _Plan, leaves: list[Any]) -> dict[str, Any]:
    layers = []
    position = 0
    for layer in plan.layers:
        end = position + len(layer.attributes)
        layers.append(_read_layer(cache, layer, leaves[position:end]))
        position = end
    state: dict[str, Any] = {"layers": layers}
    _read_attributes(cache, state, plan, leaves[position:])
    return state


def _read_layer(cache: Any, plan: _LayerPlan, leaves: list[Any]) -> Any:
    state: dict[str, Any] = {}
    _read_attributes(cache, state, plan, leaves)
    if plan.config is not None:
        state[plan.config] = plan.number
    for name in plan.implied:
        counts = plan.grows and name in COUNTERS
        state[name] = length_of(state["keys"]) if counts else derived(name, state, state.get("keys"))
    layer = object.__new__(model_by_code(plan.letters).cls)
    assign(layer, state)
    return layer


def _read_attributes(cache: Any, state: dict[str, Any], plan: _Plan | _LayerPlan, leaves: list[Any]) -> None:
    for name, value in plan.constants:
        state[name] = value
    nested = []
    for name, leaf in zip(plan.attributes, leaves):
        if "." in name:
            nested.append(leaf)
        else:
            state[name] = leaf
    if plan.facts:
        reader = Reader(cache, nested)
        for name, written in plan.facts:
            state[name] = reader.read(written)
    for name in plan.missing:
        state.pop(name, None)


_PLANS: dict[tuple[type, str], _Plan] = {}


def _plan(cls: type, context: list[str]) -> _Plan:
    # A plain table, like _DEFAULTS. torch.export has unflattened its inputs once before it traces anything.
    key = (cls, "\n".join(context))
    plan = _PLANS.get(key)
    if plan is None:
        plan = _PLANS[key] = _make_plan(cls, context)
    return plan


def _make_plan(cls: type, context: list[str]) -> _Plan:
    layers: dict[int, _LayerPlan] = {}
    plan = _Plan()
    for entry in context:
        _read_entry(entry, layers, plan)
    if sorted(layers) != list(range(len(layers))):
        raise CacheStructureError(f"the context {list(context)} skips a layer: pass the context of a flatten")
    plan.layers = [layers[i] for i in range(len(layers))]
    plan.count = len(plan.attributes) + sum(len(layer.attributes) for layer in plan.layers)
    _add_rest(plan, dict(_defaults(cls)))
    for layer in plan.layers:
        _finish(layer)
    return plan


def _finish(layer: _LayerPlan) -> None:
    """Say where the attributes come from that the context does not mention."""
    model = model_by_code(layer.letters)
    base = model.ready if layer.ready else model.fresh
    layer.grows = _grows(base)
    rest = {}
    given = {*layer.attributes, *(name for name, _ in layer.facts), *layer.missing, layer.config, *_STANDARD}
    for name, value in base.items():
        if name in given:
            continue
        if name in FROM_CONFIG or (layer.ready and (is_derived(name) or (layer.grows and name in COUNTERS))):
            layer.implied.append(name)
        else:
            rest[name] = value
    if not layer.ready:
        rest.update({name: None for name in _STANDARD if name in base})
    _add_rest(layer, rest)


def _add_rest(plan: _Plan | _LayerPlan, rest: dict[str, Any]) -> None:
    """Values that every new instance has. Containers are written as facts, so that no two instances share one."""
    given = {*plan.attributes, *(name for name, _ in plan.facts), *plan.missing}
    for name, value in rest.items():
        if name in given:
            continue
        if isinstance(value, (list, dict, set, type)):
            plan.facts.append((name, Writer(None).write(name, value)))
        else:
            plan.constants.append((name, value))


def _read_entry(entry: str, layers: dict[int, _LayerPlan], plan: _Plan) -> None:
    if not entry.startswith("#"):
        match = _LEAF_ENTRY.fullmatch(entry)
        if match is None:
            plan.attributes.append(entry)
        else:
            name = match["name"]
            # A leaf that comes first in its layer makes it; layers without keys have an entry that begins with `#`.
            _layer(match, layers).attributes.append(_ATTRIBUTE.get(name, name))
        return
    if (match := _EMPTY_ENTRY.fullmatch(entry)) is not None:
        _layer(match, layers).ready = False
        return
    match = _FACT.fullmatch(entry)
    if match is None:
        raise CacheStructureError(f"{entry!r} is no entry of a cache's context: pass the context of a flatten")
    target: Any = plan if match["index"] is None else layers[int(match["index"])]
    if match["name"].startswith("-"):
        target.missing.append(match["name"][1:])
    elif match["value"] is not None:
        target.facts.append((match["name"], loads(match["value"])))


def _layer(match: re.Match[str], layers: dict[int, _LayerPlan]) -> _LayerPlan:
    index = int(match["index"])
    if index not in layers:
        number = int(match["number"]) if match["number"] else None
        model = model_by_code(match["letters"])
        layers[index] = _LayerPlan(match["letters"], model.config, number, ready=True)
    return layers[index]
