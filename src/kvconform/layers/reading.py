"""How a cache that is a list of layers is rebuilt from its leaves, following a plan (`plans`).

What is below consists of plain functions: torch.export(strict=True) traces it since torch 2.13, the fast path aside.
"""

from __future__ import annotations

from typing import Any

import torch

from kvconform.errors import CacheStructureError
from kvconform.layers import fast
from kvconform.layers.cache_kinds import values_from_parts
from kvconform.layers.layer_kinds import model_by_code
from kvconform.layers.plans import LayerPlan, Plan, plan_of
from kvconform.origins import COUNTERS, count_of, derived, reference_of
from kvconform.values import Reader

__all__ = ["unflatten"]


def unflatten(cls: type, leaves: Any, context: list[str]) -> Any:
    """The cache of class `cls` with these leaves.

    Raises:
        CacheStructureError: the leaves or the context are not of one structure.
    """
    plan = plan_of(cls, context)
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


def _read(cache: Any, plan: Plan, leaves: list[Any]) -> dict[str, Any]:
    layers = None
    if not torch.compiler.is_dynamo_compiling() and plan.makers is not None:
        layers = fast.unflatten_layers(plan.makers, leaves[: plan.count - len(plan.leaves)])
        if layers is not None and plan.shared is not None:
            return {"layers": layers, **plan.shared}
    if layers is None:
        layers = _read_layers(cache, plan, leaves)
    state: dict[str, Any] = {"layers": layers}
    arguments = values_from_parts(type(cache), state).get("layer_init_kwargs", {}) if plan.facts else {}
    _read_attributes(cache, state, plan, leaves[plan.count - len(plan.leaves) :], arguments)
    for name in plan.derived:
        state[name] = derived(name, state, reference_of(state))
    if plan.parts:
        values = values_from_parts(type(cache), {**state, "layers": layers})
        for name in plan.parts:
            state[name] = values[name]
    return state


def _read_layers(cache: Any, plan: Plan, leaves: list[Any]) -> list[Any]:
    layers = []
    position = 0
    for layer in plan.layers:
        end = position + len(layer.leaves)
        layers.append(_read_layer(cache, layer, leaves[position:end]))
        position = end
    return layers


def _read_layer(cache: Any, plan: LayerPlan, leaves: list[Any]) -> Any:
    state: dict[str, Any] = {}
    _read_attributes(cache, state, plan, leaves, {})
    if plan.config is not None:
        state[plan.config] = plan.number
    for name in plan.derived:
        counts = plan.grows and name in COUNTERS
        state[name] = count_of(state["keys"]) if counts else derived(name, state, reference_of(state))
    layer: Any = object.__new__(model_by_code(plan.kind).cls)
    _assign(layer, state)
    return layer


def _read_attributes(
    cache: Any, state: dict[str, Any], plan: Plan | LayerPlan, leaves: list[Any], arguments: dict[str, Any]
) -> None:
    """Read leaves, facts and defaults into `state`; `arguments` are what facts refer to as known."""
    state.update(dict(plan.defaults))
    nested = []
    for name, leaf in zip(plan.leaves, leaves, strict=True):
        if "." in name:
            nested.append(leaf)
        else:
            state[name] = leaf
    if plan.facts:
        reader = Reader(cache, nested, arguments)
        for name, written in plan.facts:
            state[name] = reader.read(written)
    for name in plan.absent:
        state.pop(name, None)
