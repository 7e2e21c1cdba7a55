"""Caches that are two lists of tensors: transformers up to 4.53.

The context is the one of kvconform.layered, so that a program saved with one release loads with another:

    key_D_0, value_D_0          DynamicCache and its subclasses
    key_S16_0, value_S16_0      StaticCache of 16 tokens; X4 a sliding layer of 4 tokens; K8 a SinkCache of window 8
    #D_0                        layer 0 was skipped: transformers up to 4.49 keeps an empty list for it
    _seen_tokens                the counter, a leaf where the first layer's length does not tell it (quantized, sink)
    #max_cache_len=16           attributes of the cache
    #dtype                      an attribute that follows from the tensors (`_dtype` since 4.50)
    #-buffers                   a static cache whose tensors are not buffers too (Cache was a Module until 4.49)
"""

from __future__ import annotations

import re
from typing import Any

import torch

from kvconform import probes
from kvconform.classes import is_compileable, tells_compileable
from kvconform.errors import CacheStructureError
from kvconform.layers import COUNTERS, derived, length_of, reference_of
from kvconform.state import LEAF, Reader, Writer, attributes, dumps, in_order, loads, same

__all__ = ["flatten", "unflatten"]

_LISTS = ("key_cache", "value_cache")
_ENTRY = re.compile(r"(?P<empty>#)?(?:(?P<kind>key|value)_)?(?P<code>[A-Z]+\d*)_(?P<index>\d+)")
_FACT = re.compile(r"#(?P<name>-?[A-Za-z_]\w*)(?:=(?P<value>.*))?", re.DOTALL)
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
    count = sum(not entry.startswith("#") for entry in context)
    if count != len(leaves):
        raise CacheStructureError(
            f"{cls.__name__} of structure {context} has {count} leaves, got {len(leaves)}: "
            "unflatten with the leaves and the context of one flatten"
        )
    cache: Any = cls.__new__(cls)  # type: ignore[call-overload]
    if isinstance(cache, torch.nn.Module):
        torch.nn.Module.__init__(cache)
    _Filler(cache, leaves).fill(context)
    return cache


# ---------------------------------------------------------------------------------------------- writing


def _write_layers(writer: Writer, cache: Any, state: dict[str, Any]) -> list[str]:
    facts = []
    for index, key in enumerate(state.get("key_cache", ())):
        code = _code(cache, state, index)
        if isinstance(key, list):
            facts.append(f"#{code}_{index}")
        else:
            writer.leaf(f"key_{code}_{index}", key)
            writer.leaf(f"value_{code}_{index}", state["value_cache"][index])
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
    facts = [] if ("key_cache" in state) is usual else ["#-key_cache" if usual else "#key_cache"]
    reference = reference_of(state)
    linked = _linked_buffers(state)
    if bool(linked) is not _links_buffers(cache, state):
        facts.append("#buffers" if linked else "#-buffers")
    for name, value in state.items():
        if name in _LISTS or name in linked:
            continue
        if name == "is_compileable" and tells_compileable(type(cache)) and same(is_compileable(state), value):
            continue
        if _follows(name, value, state, reference):
            facts += [] if name == "_seen_tokens" else [f"#{name.removeprefix('_')}"]
        elif name == "_seen_tokens" and _counts_by_shape(state):
            facts.append("#_seen_tokens=0")
        elif name in COUNTERS:
            facts += _write_counter(writer, name, value, state)
        else:
            written = writer.write(name, value)
            facts += [] if written is LEAF else [f"#{name}={dumps(written)}"]
    return facts


def _follows(name: str, value: Any, state: dict[str, Any], reference: Any) -> bool:
    """Whether an attribute of the cache follows from the tensors of its first layer."""
    if name == "_seen_tokens" and _counts_by_shape(state):
        # Strict export up to torch 2.8 leaves this counter one step ahead of the tensors in the caches it traced.
        # Nothing but a deprecated property reads it there, so that only one that never counted is kept apart.
        return not (
            isinstance(value, int) and value == 0 and state["key_cache"] and length_of(state["key_cache"][0]) != 0
        )
    if reference is None:
        return False
    implied = derived(name, {**state, "keys": reference, "values": reference}, reference)
    if implied is None:
        # No tensor to follow from: tree_map puts anything in its place. Of a tensor, it is somebody's own attribute.
        return not isinstance(reference, torch.Tensor)
    return implied is not NotImplemented and same(implied, value)


def _write_counter(writer: Writer, name: str, value: Any, state: dict[str, Any]) -> list[str]:
    """Counters are leaves. HybridChunkedCache has one a layer, and another structure past the window than below."""
    if not isinstance(value, list):
        writer.leaf(name, value)
        return []
    written = [writer.leaf(f"{name}.{i}", item) for i, item in enumerate(value)]
    # A new cache has its counters before its tensors.
    lengths = [length_of(keys) for keys in state["key_cache"]]
    past = [i for i, (item, length) in enumerate(zip(value, lengths, strict=False)) if length and item >= length]
    return [f"#{name}={dumps(written)}", *([f"#past={dumps(past)}"] if past else [])]


def _counts_by_shape(state: dict[str, Any]) -> bool:
    """Whether a cache's length is the length of its first layer, and `_seen_tokens` a copy of it."""
    others = ("window_length", "max_cache_len", "_quantized_key_cache")
    return "key_cache" in state and not any(name in state for name in others)


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


class _Filler:
    """Fills one new cache from a context and its leaves."""

    def __init__(self, cache: Any, leaves: list[Any]) -> None:
        self.cache = cache
        self.leaves = iter(leaves)
        self.state: dict[str, Any] = {}
        self.pairs: dict[str, dict[int, Any]] = {name: {} for name in _LISTS}
        self.nested: list[Any] = []
        self.facts: list[tuple[str, str | None]] = []

    def fill(self, context: list[str]) -> None:
        for entry in context:
            self._take(entry)
        self._fill_lists()
        reader = Reader(self.cache, self.nested)
        implied = [self._named_here(name) for name, value in self.facts if value is None]
        self.state.update({name: reader.read(loads(value)) for name, value in self.facts if value is not None})
        self.state.pop("past", None)
        self._fill_implied(implied)
        self._fill_buffers(implied)
        if "is_compileable" not in self.state and tells_compileable(type(self.cache)):
            self.state["is_compileable"] = is_compileable(self.state)
        self._fill_modules()
        for name, value in self.state.items():
            # One by one: the trace of torch 2.10 and 2.11 knows no other way.
            self.cache.__dict__[name] = value

    def _take(self, entry: str) -> None:
        match = _ENTRY.fullmatch(entry)
        if match is not None and (match["empty"] is None) == (match["kind"] is not None):
            index = int(match["index"])
            if match["empty"]:
                self.pairs["key_cache"][index] = []
                self.pairs["value_cache"][index] = []
            else:
                self.pairs[f"{match['kind']}_cache"][index] = next(self.leaves)
        elif not entry.startswith("#"):
            if "." in entry:
                self.nested.append(next(self.leaves))
            else:
                self.state[entry] = next(self.leaves)
        elif (fact := _FACT.fullmatch(entry)) is not None:
            self.facts.append((fact["name"], fact["value"]))
        else:
            raise CacheStructureError(f"{entry!r} is no entry of a cache's context: pass the context of a flatten")

    def _fill_lists(self) -> None:
        for name, found in self.pairs.items():
            if sorted(found) != list(range(len(found))):
                raise CacheStructureError(f"a context skips a layer of {name}: pass the context of a flatten")
            self.state[name] = [found[i] for i in range(len(found))]

    def _fill_implied(self, names: list[str]) -> None:
        reference = reference_of(self.state)
        for name in names:
            value = derived(name, {**self.state, "keys": reference, "values": reference}, reference)
            if value is not NotImplemented:
                self.state[name] = value
        if ("-key_cache" in names) or not (_has_lists(self.state) or "key_cache" in names):
            for name in _LISTS:
                del self.state[name]
        elif "_seen_tokens" not in self.state and _counts_seen_tokens(type(self.cache)):
            # For quantized caches it is a leaf, so that it is there already.
            first = self.state["key_cache"][0] if self.state["key_cache"] else None
            self.state["_seen_tokens"] = length_of(first)

    def _named_here(self, name: str) -> str:
        """`_dtype` for `dtype` where this release calls it so."""
        return f"_{name}" if name == "dtype" and "_dtype" in probes.names_in_code(type(self.cache)) else name

    def _fill_buffers(self, names: list[str]) -> None:
        if not isinstance(self.cache, torch.nn.Module):
            return
        linked = "buffers" in names or ("-buffers" not in names and _links_buffers(self.cache, self.state))
        for name in [name for name in self.state if _BUFFER.fullmatch(name)]:
            self.cache._buffers[name] = self.state.pop(name)
        if linked:
            for kind in _LISTS:
                for index, tensor in enumerate(self.state[kind]):
                    self.cache._buffers[f"{kind}_{index}"] = tensor

    def _fill_modules(self) -> None:
        # A cache that is no module keeps one as any other attribute (Mamba2Cache of 4.44: its activation).
        if isinstance(self.cache, torch.nn.Module):
            for name in [name for name, value in self.state.items() if isinstance(value, torch.nn.Module)]:
                self.cache._modules[name] = self.state.pop(name)


def _counts_seen_tokens(cls: type) -> bool:
    return issubclass(cls, probes.cache_class("DynamicCache") or ())
