"""How a cache that is a list of layers is rebuilt from its leaves and its context (the grammar: kvconform.layered).

A context is read once and becomes a plan. Plans are plain data and their readers plain functions, the fast ones of
kvconform.quick aside: torch.export(strict=True) traces what is below, and guards on what it meets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch

from kvconform import probes, quick
from kvconform.classes import (
    defaults_of,
    is_compileable,
    settings_names,
    settings_of,
    tells_compileable,
    unused_layers_of,
)
from kvconform.errors import CacheStructureError
from kvconform.layers import (
    COUNTERS,
    FROM_CONFIG,
    derived,
    grows,
    is_derived,
    length_of,
    model_by_code,
    model_of,
    reference_of,
)
from kvconform.state import Reader, Writer, loads

__all__ = ["unflatten"]

_STANDARD = {"keys": "key", "values": "value"}
_ATTRIBUTE = {name: attribute for attribute, name in _STANDARD.items()}
_LEAF_ENTRY = re.compile(r"(?P<name>.+)_(?P<letters>[A-Z]+)(?P<number>\d*)_(?P<index>\d+)")
_EMPTY_ENTRY = re.compile(r"#(?P<letters>[A-Z]+)(?P<number>\d*)_(?P<index>\d+)")
_FACT = re.compile(r"#(?:(?P<index>\d+)\.)?(?P<name>-?[A-Za-z_]\w*)(?:=(?P<value>.*))?", re.DOTALL)


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
    cache: Any = object.__new__(cls)
    _assign(cache, _read(cache, plan, leaves))
    return cache


def _assign(obj: Any, state: dict[str, Any]) -> None:
    """Give an object its attributes."""
    if torch.compiler.is_dynamo_compiling():
        # Dynamo follows setattr, not writes to __dict__.
        for name, value in state.items():
            setattr(obj, name, value)
    else:
        obj.__dict__.update(state)


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
    """How a cache is rebuilt.

    Attributes:
        count: how many leaves there are.
        layers: its layers; the other attributes are its own, named as those of a layer.
        implied: attributes that follow from its own tensors.
        settings: attributes that follow from the layers (kvconform.classes.settings_of).
        compileable: whether it says of itself what its decoder's cache says.
        recipes: the same layers for kvconform.quick, if each is nothing but keys and values.
        rest: its other attributes, if all caches of this plan can share their values.
    """

    count: int = 0
    layers: list[_LayerPlan] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    facts: list[tuple[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    constants: list[tuple[str, Any]] = field(default_factory=list)
    implied: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    compileable: bool = False
    recipes: list[quick.Recipe] | None = None
    rest: dict[str, Any] | None = None


def _read(cache: Any, plan: _Plan, leaves: list[Any]) -> dict[str, Any]:
    layers = None
    if not torch.compiler.is_dynamo_compiling() and plan.recipes is not None:
        layers = quick.unflatten_layers(plan.recipes, leaves[: plan.count - len(plan.attributes)])
        if layers is not None and plan.rest is not None:
            return {"layers": layers, **plan.rest}
    if layers is None:
        layers = _read_layers(cache, plan, leaves)
    state: dict[str, Any] = {"layers": layers}
    settings = settings_of(type(cache), layers)
    known = settings.get("layer_init_kwargs", {})
    _read_attributes(cache, state, plan, leaves[plan.count - len(plan.attributes) :], known)
    for name in plan.implied:
        state[name] = derived(name, state, reference_of(state))
    for name in plan.settings:
        state[name] = settings[name]
    if plan.compileable:
        state["is_compileable"] = is_compileable(state)
    return state


def _read_layers(cache: Any, plan: _Plan, leaves: list[Any]) -> list[Any]:
    layers = []
    position = 0
    for layer in plan.layers:
        end = position + len(layer.attributes)
        layers.append(_read_layer(cache, layer, leaves[position:end]))
        position = end
    return layers


def _read_layer(cache: Any, plan: _LayerPlan, leaves: list[Any]) -> Any:
    state: dict[str, Any] = {}
    _read_attributes(cache, state, plan, leaves)
    if plan.config is not None:
        state[plan.config] = plan.number
    for name in plan.implied:
        counts = plan.grows and name in COUNTERS
        state[name] = length_of(state["keys"]) if counts else derived(name, state, reference_of(state))
    layer: Any = object.__new__(model_by_code(plan.letters).cls)
    _assign(layer, state)
    return layer


def _read_attributes(
    cache: Any, state: dict[str, Any], plan: _Plan | _LayerPlan, leaves: list[Any], known: dict[str, Any] | None = None
) -> None:
    state.update(dict(plan.constants))
    nested = []
    for name, leaf in zip(plan.attributes, leaves, strict=True):
        if "." in name:
            nested.append(leaf)
        else:
            state[name] = leaf
    if plan.facts:
        reader = Reader(cache, nested, known or {})
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
    _check(layers, context)
    _add_unused(cls, layers, plan)
    plan.layers = [layers[i] for i in range(len(layers))]
    plan.count = len(plan.attributes) + sum(len(layer.attributes) for layer in plan.layers)
    _add_rest(plan, dict(defaults_of(cls)))
    told = _told(plan)
    plan.settings = [name for name in settings_names(cls) if name not in told]
    plan.compileable = "is_compileable" not in told and tells_compileable(cls)
    for index, layer in enumerate(plan.layers):
        _finish(layer)
        _refuse_other_counters(index, layer)
    if all(_is_plain(layer) for layer in plan.layers):
        plan.recipes = [_recipe(layer) for layer in plan.layers]
        plan.rest = _shared(plan)
    return plan


def _shared(plan: _Plan) -> dict[str, Any] | None:
    """The attributes of a cache if they are constants and classes, of which any number of caches can have the same."""
    if plan.attributes or plan.missing or plan.implied or plan.settings:
        return None
    if any(not isinstance(written, dict) or {*written} != {"class"} for _, written in plan.facts):
        return None
    reader = Reader(None, [])
    return {**dict(plan.constants), **{name: reader.read(written) for name, written in plan.facts}}


def _check(layers: dict[int, _LayerPlan], context: list[str]) -> None:
    """Refuse a context that no flatten wrote, before it becomes a cache that fails much later."""
    if sorted(layers) != list(range(len(layers))):
        raise CacheStructureError(f"the context {list(context)} skips a layer: pass the context of a flatten")
    for index, layer in layers.items():
        names = layer.attributes
        if len(set(names)) != len(names) or (layer.ready and not {*_STANDARD}.issubset(names)):
            raise CacheStructureError(
                f"the context {list(context)} does not name keys and values of layer {index} once: "
                "pass the context of a flatten"
            )


def _add_unused(cls: type, layers: dict[int, _LayerPlan], plan: _Plan) -> None:
    """Layers that every new cache of a class has, and a context therefore does not mention."""
    unused = unused_layers_of(cls)
    if layers or "layers" in plan.missing:
        return
    if unused is None:
        plan.missing.append("layers")
    else:
        layers.update(
            {i: _LayerPlan(model_of(type(one)).code, None, None, ready=False) for i, one in enumerate(unused)}
        )


def _refuse_other_counters(index: int, layer: _LayerPlan) -> None:
    """Refuse a layer that counts otherwise than its class does here: it would be taken for an empty one."""
    model = model_by_code(layer.letters)
    if not layer.ready or not model.ready:
        return
    names = {*_told(layer), *layer.implied}
    lacking = sorted(name for name in COUNTERS if name in model.ready and name not in names)
    # What an example of transformers' own class lacks, it never has; of another's class an example may know less.
    known = model.ready if model.cls is probes.cache_class(model.cls.__name__) else COUNTERS
    foreign = sorted(name for name in COUNTERS if name in layer.attributes and name not in known)
    if lacking or foreign:
        told = f"gives it no {lacking[0]}" if lacking else f"gives it {foreign[0]}, which it does not have"
        raise CacheStructureError(
            f"layer {index} is a {model.cls.__name__}, and the context {told} ({probes.release()}): another release "
            "wrote it; unflatten with that one, or export again with this one"
        )


def _is_plain(layer: _LayerPlan) -> bool:
    return layer.ready and layer.attributes == [*_STANDARD] and not layer.facts and not layer.missing


def _recipe(layer: _LayerPlan) -> quick.Recipe:
    config = {} if layer.config is None else {layer.config: layer.number}
    return quick.recipe_of(model_by_code(layer.letters).cls, {**dict(layer.constants), **config}, layer.implied)


def _finish(layer: _LayerPlan) -> None:
    """Say where the attributes come from that the context does not mention."""
    model = model_by_code(layer.letters)
    base = model.ready if layer.ready else model.fresh
    layer.grows = grows(base)
    rest = {}
    told = {*_told(layer), *layer.implied, layer.config, *_STANDARD}
    # A layer of linear attention alone has tensors, and is never `ready`.
    filled = layer.ready or bool(layer.attributes)
    for name, value in base.items():
        if name in told:
            continue
        if name in FROM_CONFIG or (filled and is_derived(name)) or (layer.ready and layer.grows and name in COUNTERS):
            layer.implied.append(name)
        else:
            rest[name] = value
    if not layer.ready:
        rest.update({name: None for name in _STANDARD if name in base})
    _add_rest(layer, rest)


def _told(plan: _Plan | _LayerPlan) -> set[str]:
    """The attributes that the context gives, or takes away."""
    return {*plan.attributes, *(name for name, _ in plan.facts), *plan.missing}


def _add_rest(plan: _Plan | _LayerPlan, rest: dict[str, Any]) -> None:
    """Values that every new instance has. Containers are written as facts, so that no two instances share one."""
    told = _told(plan)
    for name, value in rest.items():
        if name in told:
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
    if match["index"] is not None and int(match["index"]) not in layers:
        raise CacheStructureError(
            f"{entry!r} is about a layer that the context does not have: pass the context of a flatten"
        )
    target: Any = plan if match["index"] is None else layers[int(match["index"])]
    if match["name"].startswith("-"):
        target.missing.append(match["name"][1:])
    elif match["value"] is not None:
        target.facts.append((match["name"], loads(match["value"])))
    elif is_derived(match["name"]):
        target.implied.append(match["name"])


def _layer(match: re.Match[str], layers: dict[int, _LayerPlan]) -> _LayerPlan:
    index = int(match["index"])
    number = int(match["number"]) if match["number"] else None
    if index not in layers:
        model = model_by_code(match["letters"])
        layers[index] = _LayerPlan(match["letters"], model.config, number, ready=True)
    if (layers[index].letters, layers[index].number) != (match["letters"], number):
        raise CacheStructureError(f"{match[0]!r} gives layer {index} a second class: pass the context of a flatten")
    return layers[index]
