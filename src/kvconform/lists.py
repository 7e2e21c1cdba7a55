"""Caches that are two lists of tensors: transformers up to 4.53, and caches of single models after it (Jamba, Zamba).

The context has the grammar of `kvconform.context`, as the one of a list of layers has, so that a program saved with one
release loads with another. The layers' codes here:

| code | cache |
|---|---|
| `D` | DynamicCache and its subclasses |
| `S16` | StaticCache of 16 tokens |
| `X4` | a sliding layer of 4 tokens |
| `K8` | SinkCache with a window of 8 tokens |
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch

from kvconform import context as grammar
from kvconform import probes
from kvconform.attributes import attributes, in_order, same
from kvconform.context import Absent, EmptyLayer, Fact, Follows, LayerLeaf, PastLayers, Present
from kvconform.errors import CacheStructureError
from kvconform.layers.cache_kinds import names_from_parts, values_from_parts
from kvconform.origins import COUNTERS, derived, length_of, reference_of
from kvconform.values import LEAF, Reader, Writer, dumps, loads

__all__ = ["flatten", "unflatten"]

_LISTS = ("key_cache", "value_cache")
_BUFFER = re.compile(r"(key|value)_cache_\d+")


def flatten(cache: Any) -> tuple[list[Any], list[str]]:
    """Children and context of a cache.

    Raises:
        UnknownLayerError: an attribute that is neither JSON nor a leaf.
    """
    writer = Writer(cache)
    state = dict(in_order(attributes(cache), type(cache)))
    facts = _write_layers(writer, cache, state)
    context = [*writer.names, *facts]
    start = len(writer.names)
    facts = _write_attributes(writer, cache, state)
    return writer.leaves, [*context, *writer.names[start:], *facts]


def unflatten(cls: type, leaves: Any, context: list[str]) -> Any:
    """The cache of class `cls` with these leaves.

    Raises:
        CacheStructureError: the leaves or the context are not of one structure.
    """
    leaves = list(leaves)
    plan = _plan_of(context)
    if len(plan.leaves) != len(leaves):
        raise CacheStructureError(
            f"{cls.__name__} of structure {context} has {len(plan.leaves)} leaves, got {len(leaves)}: "
            "unflatten with the leaves and the context of one flatten"
        )
    cache: Any = cls.__new__(cls)  # type: ignore[call-overload]
    if isinstance(cache, torch.nn.Module):
        torch.nn.Module.__init__(cache)
    _Filler(cache, plan).fill(leaves)
    return cache


# ---------------------------------------------------------------------------------------------- writing


def _write_layers(writer: Writer, cache: Any, state: dict[str, Any]) -> list[str]:
    facts = []
    for index, key in enumerate(state.get("key_cache", ())):
        code = _code(cache, state, index)
        if isinstance(key, list):
            facts.append(EmptyLayer.text(code, index))
        else:
            writer.leaf(LayerLeaf.text("key", code, index), key)
            writer.leaf(LayerLeaf.text("value", code, index), state["value_cache"][index])
    return facts


def _code(cache: Any, state: dict[str, Any], index: int) -> str:
    """Letter and number of one layer; only static and sink caches have a number."""
    if "window_length" in state:
        return f"K{state['window_length']}"
    if "max_cache_len" not in state or isinstance(cache, probes.cache_class("DynamicCache") or ()):
        return "D"
    keys = state["key_cache"][index]
    # The hybrid caches differ from layer to layer; the tensor of a static layer is as long as the layer can get.
    length = keys.shape[-2] if isinstance(keys, torch.Tensor) else state["max_cache_len"]
    sliding = state.get("is_sliding", getattr(cache, "is_sliding", False))
    if isinstance(sliding, torch.Tensor):
        # Until 4.50 HybridCache keeps a tensor of flags, which must not be read while torch.export traces.
        sliding = length != state["max_cache_len"]
    elif not isinstance(sliding, bool):
        sliding = bool(sliding[index])
    return f"X{length}" if sliding else f"S{state['max_cache_len']}"


def _write_attributes(writer: Writer, cache: Any, state: dict[str, Any]) -> list[str]:
    usual = _has_lists(state)
    facts = [] if ("key_cache" in state) is usual else [_whether("key_cache", present=not usual)]
    reference = reference_of(state)
    linked = _linked_buffers(state)
    if bool(linked) is not _links_buffers(cache, state):
        facts.append(_whether("buffers", present=bool(linked)))
    # Asked only where it matters: the first answer of a class tries it, which must not happen inside a trace.
    parts = values_from_parts(type(cache), state) if "is_compileable" in state else {}
    for name, value in state.items():
        if name in _LISTS or name in linked:
            continue
        if name in parts and same(parts[name], value):
            continue
        if _follows(name, value, cache, state, reference):
            facts += [] if name == "_seen_tokens" else [Follows.text(None, name.removeprefix("_"))]
        elif name == "_seen_tokens" and _counts_by_shape(cache, state):
            facts.append(Fact.text(None, name, "0"))
        elif name in COUNTERS:
            facts += _write_counter(writer, name, value, state)
        else:
            written = writer.write(name, value)
            facts += [] if written is LEAF else [Fact.text(None, name, dumps(written))]
    return facts


def _whether(name: str, *, present: bool) -> str:
    return Present.text(name) if present else Absent.text(None, name)


def _follows(name: str, value: Any, cache: Any, state: dict[str, Any], reference: Any) -> bool:
    """Whether an attribute of the cache follows from the tensors of its first layer."""
    if name == "_seen_tokens" and _counts_by_shape(cache, state):
        # Strict export up to torch 2.8 leaves this counter one step ahead of the tensors in the caches it traced.
        # Nothing but a deprecated property reads it there, so that only one that never counted is kept apart.
        return not (
            isinstance(value, int) and value == 0 and state["key_cache"] and length_of(state["key_cache"][0]) != 0
        )
    if reference is None:
        return False
    expected = derived(name, {**state, "keys": reference, "values": reference}, reference)
    if expected is None:
        # Where tree_map has put something else in place of the tensors, nothing contradicts the value. Where there are
        # tensors, they lack what the name stands for, and the attribute is a user's own.
        return not isinstance(reference, torch.Tensor)
    return expected is not NotImplemented and same(expected, value)


def _write_counter(writer: Writer, name: str, value: Any, state: dict[str, Any]) -> list[str]:
    """Counters are leaves. HybridChunkedCache has one a layer, and another structure past the window than below."""
    if not isinstance(value, list):
        writer.leaf(name, value)
        return []
    written = [writer.leaf(f"{name}.{i}", item) for i, item in enumerate(value)]
    # A new cache has its counters before its tensors.
    lengths = [length_of(keys) for keys in state["key_cache"]]
    past = [i for i, (item, length) in enumerate(zip(value, lengths, strict=False)) if length and item >= length]
    return [Fact.text(None, name, dumps(written)), *([PastLayers.text(past)] if past else [])]


def _counts_by_shape(cache: Any, state: dict[str, Any]) -> bool:
    """Whether a cache's length is the length of its first layer, and `_seen_tokens` a copy of it.

    A user's class that answers for its length itself may have dropped tokens that it counted.
    """
    others = ("window_length", "max_cache_len", "_quantized_key_cache")
    if "key_cache" not in state or any(name in state for name in others):
        return False
    return bool(type(cache).get_seq_length.__module__.split(".")[0] == "transformers")


def _has_lists(state: dict[str, Any]) -> bool:
    """Whether a cache with these attributes has lists of tensors; EncoderDecoderCache has caches."""
    return "self_attention_cache" not in state


def _links_buffers(cache: Any, state: dict[str, Any]) -> bool:
    """Whether a new cache of this kind has its tensors as buffers too: static ones that are modules."""
    return isinstance(cache, torch.nn.Module) and "max_cache_len" in state


def _linked_buffers(state: dict[str, Any]) -> set[str]:
    """Buffers that are the tensors of the lists, registered a second time."""
    names = {name for name in state if _BUFFER.fullmatch(name)}
    for name in names:
        kind, _, index = name.rpartition("_")
        tensors = state.get(kind, [])
        if int(index) >= len(tensors) or tensors[int(index)] is not state[name]:
            return set()
    return names


# ---------------------------------------------------------------------------------------------- reading


@dataclass
class _Plan:
    """What a context says, as plain data, which a trace can read.

    Attributes:
        leaves: where each leaf goes: a list and the layer in it, or an attribute of the cache (with a path inside it).
        empty: layers without tensors.
        facts: attributes and their JSON.
        derived: attributes that follow from the tensors.
        present: whether the cache has its lists (`key_cache`) and `buffers`, where that is unusual.
    """

    leaves: list[tuple[str, int | None]] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    present: dict[str, bool] = field(default_factory=dict)


_PLANS: dict[str, _Plan] = {}


def _plan_of(context: list[str]) -> _Plan:
    # Read once, outside of any trace: torch.export has unflattened its inputs once before it traces.
    key = "\n".join(context)
    plan = _PLANS.get(key)
    if plan is None:
        plan = _Plan()
        for text in context:
            _take(grammar.parse(text), plan)
        _PLANS[key] = plan
    return plan


def _take(entry: grammar.Entry, plan: _Plan) -> None:
    """Note in the plan what one entry says."""
    match entry:
        case LayerLeaf(name="key" | "value"):
            plan.leaves.append((f"{entry.name}_cache", entry.index))
        case grammar.CacheLeaf() | LayerLeaf():
            plan.leaves.append((entry.write(), None))
        case EmptyLayer():
            plan.empty.append(entry.index)
        case Fact(None, name, value):
            plan.facts.append((name, value))
        case Follows(None, name):
            plan.derived.append(name)
        case Present(name) | Absent(None, name):
            plan.present[name] = isinstance(entry, Present)
        case PastLayers():
            # It keeps two structures apart and says nothing that the counters, which are leaves, do not say.
            pass
        case _:
            raise CacheStructureError(
                f"{entry.write()!r} is no entry of a cache's context: pass the context of a flatten"
            )


class _Filler:
    """Fills one new cache from a plan and its leaves."""

    def __init__(self, cache: Any, plan: _Plan) -> None:
        self.cache = cache
        self.plan = plan
        self.state: dict[str, Any] = {}

    def fill(self, leaves: list[Any]) -> None:
        nested = self._fill_leaves(leaves)
        reader = Reader(self.cache, nested)
        self.state.update({name: reader.read(loads(value)) for name, value in self.plan.facts})
        self._fill_derived()
        self._fill_buffers()
        if any(name not in self.state for name in names_from_parts(type(self.cache))):
            self.state = {**values_from_parts(type(self.cache), self.state), **self.state}
        self._fill_modules()
        for name, value in self.state.items():
            # One by one: the trace of torch 2.10 and 2.11 knows no other way.
            self.cache.__dict__[name] = value

    def _fill_leaves(self, leaves: list[Any]) -> list[Any]:
        """Put each leaf where it belongs; returns those that facts refer to."""
        pairs: dict[str, dict[int, Any]] = {name: {index: [] for index in self.plan.empty} for name in _LISTS}
        nested = []
        for (name, index), leaf in zip(self.plan.leaves, leaves, strict=True):
            if index is not None:
                pairs[name][index] = leaf
            elif "." in name:
                nested.append(leaf)
            else:
                self.state[name] = leaf
        for name, found in pairs.items():
            if sorted(found) != list(range(len(found))):
                raise CacheStructureError(f"a context skips a layer of {name}: pass the context of a flatten")
            self.state[name] = [found[i] for i in range(len(found))]
        return nested

    def _fill_derived(self) -> None:
        reference = reference_of(self.state)
        for name in [self._named_here(name) for name in self.plan.derived]:
            value = derived(name, {**self.state, "keys": reference, "values": reference}, reference)
            if value is not NotImplemented:
                self.state[name] = value
        if not self.plan.present.get("key_cache", _has_lists(self.state)):
            for name in _LISTS:
                del self.state[name]
        elif "_seen_tokens" not in self.state and _counts_seen_tokens(type(self.cache)):
            # For quantized caches it is a leaf, so that it is there already.
            first = self.state["key_cache"][0] if self.state["key_cache"] else None
            self.state["_seen_tokens"] = length_of(first)

    def _named_here(self, name: str) -> str:
        """`_dtype` for `dtype` where this release calls it so."""
        return f"_{name}" if name == "dtype" and "_dtype" in probes.names_in_code(type(self.cache)) else name

    def _fill_buffers(self) -> None:
        if not isinstance(self.cache, torch.nn.Module):
            return
        linked = self.plan.present.get("buffers", _links_buffers(self.cache, self.state))
        own = {name: self.state.pop(name) for name in list(self.state) if _BUFFER.fullmatch(name)}
        if linked:
            own = {f"{kind}_{i}": tensor for kind in _LISTS for i, tensor in enumerate(self.state[kind])}
        # In the order in which the classes register them, layer by layer: a `state_dict()` shows it.
        for name in sorted(own, key=_place_of_buffer):
            self.cache._buffers[name] = own[name]

    def _fill_modules(self) -> None:
        # A cache that is no module keeps one as any other attribute (Mamba2Cache of 4.44: its activation).
        if isinstance(self.cache, torch.nn.Module):
            for name in [name for name, value in self.state.items() if isinstance(value, torch.nn.Module)]:
                self.cache._modules[name] = self.state.pop(name)


def _place_of_buffer(name: str) -> tuple[int, str]:
    kind, _, index = name.rpartition("_")
    return int(index), kind


def _counts_seen_tokens(cls: type) -> bool:
    return issubclass(cls, probes.cache_class("DynamicCache") or ())
