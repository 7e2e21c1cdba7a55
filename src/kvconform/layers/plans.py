"""From a context to a plan: how a cache that is a list of layers is rebuilt from its leaves.

A context is read once for each class and becomes a plan, which `reading` follows. A plan is plain data without classes:
torch.export(strict=True) reads it while it traces, and dynamo cannot guard on a class that it meets in a plan first.
It has unflattened its inputs once before it traces, so that no plan is made inside a trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kvconform import context as grammar
from kvconform import probes
from kvconform.errors import CacheStructureError
from kvconform.layers import fast
from kvconform.layers.cache_kinds import cache_model_of, layers_that_a_new_cache_has, names_from_parts
from kvconform.layers.layer_kinds import model_by_code, model_by_name, model_of
from kvconform.learned import PLANS
from kvconform.origins import COUNTERS, TENSORS_OF_A_LAYER, Origin, grows, is_derived, origin_in_cache, origin_of
from kvconform.values import Reader, Writer, dumps, loads

__all__ = ["LayerPlan", "Plan", "plan_of"]

_ATTRIBUTE = {"key": "keys", "value": "values"}


@dataclass
class LayerPlan:
    """How one layer is rebuilt from its share of the leaves: its attributes by their origin.

    Attributes:
        letters: the code of its class.
        kind: what its class is looked up by: these letters, or the name of a class that lives with its model.
        config: the attribute with the number in its code.
        number: that number.
        ready: whether it has keys and values.
        leaves: one name a leaf; a name with a dot is inside a fact.
        facts: attributes and their JSON.
        absent: attributes that a new layer has and this one lacks.
        defaults: attributes and the values that a new layer has.
        derived: attributes that follow from the tensors or the code.
        grows: whether its counter is the length of its keys.
    """

    letters: str
    kind: str
    config: str | None
    number: int | None
    ready: bool
    leaves: list[str] = field(default_factory=list)
    facts: list[tuple[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    defaults: list[tuple[str, Any]] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    grows: bool = False


@dataclass
class Plan:
    """How a cache is rebuilt. Its own attributes are named as those of a layer.

    Attributes:
        count: how many leaves there are.
        layers: its layers.
        parts: attributes that follow from the layers, or from the caches in it.
        makers: the same layers for the fast path, if each is nothing but keys and values.
        shared: its other attributes, if all caches of this plan can share their values.
    """

    count: int = 0
    layers: list[LayerPlan] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)
    facts: list[tuple[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    defaults: list[tuple[str, Any]] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    makers: list[fast.Maker] | None = None
    shared: dict[str, Any] | None = None


def plan_of(cls: type, context: list[str]) -> Plan:
    """How a cache of class `cls` with this context is rebuilt.

    Raises:
        CacheStructureError: the context is of no structure.
        UnknownLayerError: it names a layer class that this release lacks.
    """
    key = (cls, "\n".join(context))
    plan: Plan | None = PLANS.get(key)
    if plan is None:
        plan = PLANS[key] = _make_plan(cls, context)
    return plan


def _make_plan(cls: type, context: list[str]) -> Plan:
    layers: dict[int, LayerPlan] = {}
    plan = Plan()
    entries = grammar.parse_all(context)
    classes = _classes(entries)
    for entry in entries:
        _take(entry, layers, plan, classes)
    _check(layers, context)
    _add_unmentioned_layers(cls, layers, plan)
    plan.layers = [layers[i] for i in range(len(layers))]
    plan.count = len(plan.leaves) + sum(len(layer.leaves) for layer in plan.layers)
    _add_unmentioned_of_cache(cls, plan)
    for index, layer in enumerate(plan.layers):
        _add_unmentioned(layer)
        _refuse_other_counters(index, layer)
    if all(_is_plain(layer) for layer in plan.layers):
        plan.makers = [_maker(layer) for layer in plan.layers]
        plan.shared = _shared(plan)
    return plan


# ------------------------------------------------------------------------------------------- what the context mentions


def _classes(entries: Iterable[grammar.Entry]) -> dict[int, str]:
    """The classes that facts name, by the index of the layer: those that live with their models."""
    found: dict[int, str] = {}
    for entry in entries:
        if isinstance(entry, grammar.Fact) and entry.index is not None and entry.name == grammar.CLASS:
            reference = entry.value[1:-1]
            if entry.value != dumps(reference):
                raise CacheStructureError(f"{entry.write()!r} names no class: pass the context of a flatten")
            if found.setdefault(entry.index, reference) != reference:
                raise _second_class(entry, entry.index)
    return found


def _take(entry: grammar.Entry, layers: dict[int, LayerPlan], plan: Plan, classes: dict[int, str]) -> None:
    """Note in the plan what one entry says."""
    match entry:
        case grammar.LayerLeaf():
            # A leaf that comes first in its layer makes it; a layer without keys begins with an entry of its own.
            _layer(entry, layers, classes).leaves.append(_ATTRIBUTE.get(entry.name, entry.name))
        case grammar.EmptyLayer():
            _layer(entry, layers, classes).ready = False
        case grammar.CacheLeaf(path):
            plan.leaves.append(path)
        case grammar.Fact(index, name, value):
            target = _target(entry, index, layers, plan)
            if index is None or name != grammar.CLASS:
                target.facts.append((name, loads(value)))
        case grammar.PastLayers(indices):
            # Only a cache of lists has this entry. Here it is an attribute that is called so.
            plan.facts.append(("past", [*indices]))
        case grammar.Absent(index, name):
            _target(entry, index, layers, plan).absent.append(name)
        case grammar.Follows(index, name):
            target = _target(entry, index, layers, plan)
            target.derived += [name] if is_derived(name) else []
        case grammar.Past(index):
            # It keeps two structures apart and says nothing that the counter, a leaf, does not say.
            _target(entry, index, layers, plan)


def _target(entry: grammar.Entry, index: int | None, layers: dict[int, LayerPlan], plan: Plan) -> Plan | LayerPlan:
    if index is None:
        return plan
    if index not in layers:
        raise CacheStructureError(
            f"{entry.write()!r} is about a layer that the context does not have: pass the context of a flatten"
        )
    return layers[index]


def _layer(
    entry: grammar.LayerLeaf | grammar.EmptyLayer, layers: dict[int, LayerPlan], classes: dict[int, str]
) -> LayerPlan:
    if entry.index not in layers:
        reference = classes.get(entry.index)
        model = model_by_code(entry.letters) if reference is None else model_by_name(reference)
        if reference is not None and model.code != entry.letters:
            raise CacheStructureError(
                f"{entry.write()!r} is a layer of code {entry.letters}, and {reference} has {model.code} here "
                f"({probes.release()}): unflatten with the release that wrote it, or export again with this one"
            )
        kind = entry.letters if reference is None else reference
        layers[entry.index] = LayerPlan(entry.letters, kind, model.config, entry.number, ready=True)
    layer = layers[entry.index]
    if (layer.letters, layer.number) != (entry.letters, entry.number):
        raise _second_class(entry, entry.index)
    return layer


def _second_class(entry: grammar.Entry, index: int) -> CacheStructureError:
    return CacheStructureError(f"{entry.write()!r} gives layer {index} a second class: pass the context of a flatten")


def _check(layers: dict[int, LayerPlan], context: list[str]) -> None:
    """Refuse a context that no flatten wrote, before it becomes a cache that fails much later."""
    if sorted(layers) != list(range(len(layers))):
        raise CacheStructureError(f"the context {list(context)} skips a layer: pass the context of a flatten")
    for index, layer in layers.items():
        names = layer.leaves
        if len(set(names)) != len(names) or (layer.ready and not {*TENSORS_OF_A_LAYER}.issubset(names)):
            raise CacheStructureError(
                f"the context {list(context)} does not name keys and values of layer {index} once: "
                "pass the context of a flatten"
            )


# -------------------------------------------------------------------------------- what the context does not mention


def _given(plan: Plan | LayerPlan) -> set[str]:
    """The attributes that a plan gives a value, or takes away, other than by following."""
    return {*plan.leaves, *(name for name, _ in plan.facts), *plan.absent}


def _add_unmentioned_layers(cls: type, layers: dict[int, LayerPlan], plan: Plan) -> None:
    """Layers that every new cache of a class has, and a context therefore does not mention."""
    new = layers_that_a_new_cache_has(cls)
    if layers or "layers" in plan.absent:
        return
    if new is None:
        plan.absent.append("layers")
    else:
        codes = [model_of(type(one)).code for one in new]
        layers.update({i: LayerPlan(code, code, None, None, ready=False) for i, code in enumerate(codes)})


def _add_unmentioned(layer: LayerPlan) -> None:
    """Say where the attributes of a layer come from that its context does not mention."""
    model = model_by_code(layer.kind)
    base = model.ready if layer.ready else model.fresh
    layer.grows = grows(base)
    filled = layer.ready or bool(layer.leaves)
    given = {*_given(layer), *layer.derived, layer.config}
    defaults = {}
    for name in [name for name in base if name not in given]:
        origin = origin_of(name, model, ready=layer.ready, filled=filled)
        if origin is Origin.TENSORS or origin is Origin.CODE:
            layer.derived.append(name)
        elif origin is Origin.DEFAULT:
            defaults[name] = base[name]
    _add_defaults(layer, defaults)


def _add_unmentioned_of_cache(cls: type, plan: Plan) -> None:
    """Say where the attributes of a cache come from that its context does not mention."""
    model = cache_model_of(cls)
    parts = names_from_parts(cls)
    given = _given(plan)
    defaults = {}
    for name in [name for name in {**model.defaults, **dict.fromkeys(parts)} if name not in given]:
        if origin_in_cache(name, model, parts) is Origin.PARTS:
            plan.parts.append(name)
        else:
            # Also a counter, which a context always mentions, unless a release wrote it whose class has none.
            defaults[name] = model.defaults[name]
    _add_defaults(plan, defaults)


def _add_defaults(plan: Plan | LayerPlan, defaults: dict[str, Any]) -> None:
    """Values that a new instance has. Containers are written as facts, so that no two instances share one."""
    for name, value in defaults.items():
        if isinstance(value, (list, dict, set, type)):
            plan.facts.append((name, Writer(None).write(name, value)))
        else:
            plan.defaults.append((name, value))


def _refuse_other_counters(index: int, layer: LayerPlan) -> None:
    """Refuse a layer that counts otherwise than its class does here: it would be taken for an empty one."""
    model = model_by_code(layer.kind)
    if not layer.ready or not model.ready:
        return
    names = {*_given(layer), *layer.derived}
    lacking = sorted(name for name in COUNTERS if name in model.ready and name not in names)
    # What an example of transformers' own class lacks, it never has; of another's class an example may know less.
    possible: Iterable[str] = model.ready if model.cls is probes.cache_class(model.cls.__name__) else COUNTERS
    foreign = sorted(name for name in COUNTERS if name in layer.leaves and name not in possible)
    if lacking or foreign:
        problem = f"gives it no {lacking[0]}" if lacking else f"gives it {foreign[0]}, which it does not have"
        raise CacheStructureError(
            f"layer {index} is a {model.cls.__name__}, and the context {problem} ({probes.release()}): another release "
            "wrote it; unflatten with that one, or export again with this one"
        )


# ----------------------------------------------------------------------------------------------------- the fast path


def _is_plain(layer: LayerPlan) -> bool:
    return layer.ready and layer.leaves == [*TENSORS_OF_A_LAYER] and not layer.facts and not layer.absent


def _maker(layer: LayerPlan) -> fast.Maker:
    config = {} if layer.config is None else {layer.config: layer.number}
    return fast.maker_of(model_by_code(layer.kind).cls, {**dict(layer.defaults), **config}, layer.derived)


def _shared(plan: Plan) -> dict[str, Any] | None:
    """The attributes of a cache if they are constants and classes, of which any number of caches can have the same."""
    if plan.leaves or plan.absent or plan.derived or plan.parts:
        return None
    if any(not isinstance(written, dict) or {*written} != {"class"} for _, written in plan.facts):
        return None
    reader = Reader(None, [])
    return {**dict(plan.defaults), **{name: reader.read(written) for name, written in plan.facts}}
