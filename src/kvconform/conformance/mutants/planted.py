"""The planted subjects. Each is kvconform's registration with one part made wrong.

``planted:none`` has nothing wrong.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.fx._pytree as fx_pytree
import torch.utils._pytree as pytree

from kvconform.checks.needs import lookup
from kvconform.checks.registry import registry_snapshot, restore_registry
from kvconform.conformance.mutants.tools import classes, layers_of, on_leaves, on_result, on_values, rewire, rewire_fx

MUTANTS: dict[str, Callable[[], Any]] = {}
"""Every mutant by name: a function that returns a context manager."""


def _context() -> Any:
    from kvconform import register_flattening_functions

    return register_flattening_functions(patch_transformers=True)


def mutant(change: Callable[[], None]) -> Callable[[], Any]:
    """Plant a subject: kvconform's registration, then ``change``; everything is undone exactly."""

    @contextlib.contextmanager
    def subject() -> Iterator[None]:
        with _context():
            inside = registry_snapshot()
            change()
            try:
                yield
            finally:
                restore_registry(inside)

    MUTANTS[change.__name__] = subject
    return subject


def whole(subject: Callable[[], Any]) -> Callable[[], Any]:
    """Plant a subject that is a context manager of its own."""
    MUTANTS[subject.__name__] = contextlib.contextmanager(subject)
    return MUTANTS[subject.__name__]


def _clone(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _each(**wrappers: Any) -> None:
    for cls in classes():
        rewire(cls, **wrappers)


def _tensors(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [change(value) if isinstance(value, torch.Tensor) else value for value in values]


@mutant
def none() -> None:
    """Nothing is wrong: what fails for this one is no kill."""


@mutant
def flatten_clones() -> None:
    """Flattening copies the tensors."""
    _each(flatten=on_leaves(lambda leaves: [_clone(leaf) for leaf in leaves]))


@mutant
def unflatten_clones() -> None:
    """Unflattening copies the tensors."""
    _each(unflatten=on_values(lambda values: [_clone(value) for value in values]))


@mutant
def unflatten_detaches() -> None:
    """Unflattening detaches: equal elements, other tensor objects."""
    _each(unflatten=on_values(_tensors(lambda tensor: tensor.detach())))


@mutant
def values_before_keys() -> None:
    """Unflattening swaps the keys and values of each layer."""
    _each(
        unflatten=on_values(
            lambda values: [*itertools.chain(*zip(values[1::2], values[::2]))] if len(values) % 2 == 0 else values  # noqa: B905 - equal lengths are checked or wrong on purpose
        )
    )


@mutant
def leaves_reversed() -> None:
    """Unflattening takes the leaves backwards."""
    _each(unflatten=on_values(lambda values: values[::-1]))


@mutant
def keys_first() -> None:
    """Leaves are all keys, then all values."""
    _each(
        flatten=on_leaves(lambda leaves: [*leaves[::2], *leaves[1::2]] if _paired(leaves) else leaves),
        unflatten=on_values(
            lambda values: (
                [*itertools.chain(*zip(values[: len(values) // 2], values[len(values) // 2 :]))]  # noqa: B905 - equal lengths are checked or wrong on purpose
                if _paired(values)
                else values
            )
        ),
    )


def _paired(leaves: list[Any]) -> bool:
    return len(leaves) % 2 == 0 and all(isinstance(leaf, torch.Tensor) for leaf in leaves)


@mutant
def last_layer_dropped() -> None:
    """The last layer is lost."""

    def drop(cache: Any) -> None:
        for name in ("layers", "key_cache", "value_cache"):
            held = cache.__dict__.get(name)
            if held:
                held.pop()

    _each(unflatten=on_result(drop))


@mutant
def layer_added() -> None:
    """A layer is there twice."""

    def add(cache: Any) -> None:
        for name in ("layers", "key_cache", "value_cache"):
            held = cache.__dict__.get(name)
            if held:
                held.append(held[-1])

    _each(unflatten=on_result(add))


@mutant
def cast_to_float32() -> None:
    """Unflattening gives float32 whatever went in."""
    _each(unflatten=on_values(_tensors(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)))


@mutant
def cast_to_float16() -> None:
    """Unflattening halves the precision."""
    _each(unflatten=on_values(_tensors(lambda tensor: tensor.half() if tensor.is_floating_point() else tensor)))


@mutant
def moved_to_cpu() -> None:
    """Unflattening gives tensors on the CPU, whatever device they were on."""
    _each(
        unflatten=on_values(
            _tensors(
                lambda tensor: (
                    torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
                    if tensor.device.type != "cpu"
                    else tensor
                )
            )
        )
    )


def _with_context(extra: Callable[[Any], Any]) -> None:
    """Put something into the context that depends on the cache."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            return leaves, [context, extra(cache)]

        return changed

    _each(flatten=wrap, unflatten=lambda unflatten: lambda values, context: unflatten(values, context[0]))


def _shape(cache: Any, dim: int) -> int:
    tensor = next((leaf for leaf in pytree.tree_leaves(vars(cache)) if isinstance(leaf, torch.Tensor)), None)
    states = [layer.keys for layer in layers_of(cache) if isinstance(getattr(layer, "keys", None), torch.Tensor)]
    tensor = states[0] if states else tensor
    return int(tensor.shape[dim]) if tensor is not None and tensor.dim() > dim else 0


@mutant
def context_has_length() -> None:
    """The context tells the sequence length: no next token fits an exported program."""
    _with_context(lambda cache: int(cache.get_seq_length()))


@mutant
def context_is_new_each_time() -> None:
    """The context is an object that equals nothing."""
    _with_context(lambda cache: object())  # noqa: ARG005


@mutant
def context_has_class() -> None:
    """The context has a class in it, which JSON cannot hold."""
    _with_context(type)


@mutant
def context_has_tuple() -> None:
    """The context has a tuple in it, which comes back from JSON as a list."""
    _with_context(lambda cache: ("layers", len(layers_of(cache))))


@mutant
def returns_the_original() -> None:
    """Unflattening gives back the very cache that was flattened last."""
    held: dict[str, Any] = {}

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            held["cache"] = cache
            return flatten(cache)

        return changed

    _each(
        flatten=wrap,
        unflatten=on_result(lambda cache: held.get("cache") if type(held.get("cache")) is type(cache) else cache),
    )


@mutant
def shares_the_layers() -> None:
    """The restored cache shares its list of layers with the original."""
    held: dict[str, Any] = {}

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            held["cache"] = cache
            return flatten(cache)

        return changed

    def share(cache: Any) -> None:
        original = held.get("cache")
        for name in ("layers", "key_cache", "value_cache"):
            if original is not None and type(original) is type(cache) and cache.__dict__.get(name) is not None:
                cache.__dict__[name] = original.__dict__[name]

    _each(flatten=wrap, unflatten=on_result(share))


@mutant
def flatten_changes_the_cache() -> None:
    """Flattening leaves a mark on the original."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            cache.__dict__["flattened"] = True
            return flatten(cache)

        return changed

    _each(flatten=wrap)


@mutant
def attribute_added() -> None:
    """The restored cache has an attribute that no cache has."""
    _each(unflatten=on_result(lambda cache: cache.__dict__.update(restored=True)))


def _plain_dynamic(cache: Any) -> Any:
    plain = lookup("transformers.cache_utils:DynamicCache")()
    for name in ("layers", "key_cache", "value_cache"):
        if name in cache.__dict__:
            plain.__dict__[name] = cache.__dict__[name]
    return plain


@mutant
def class_lost() -> None:
    """Everything comes back as a DynamicCache."""
    for cls in classes():
        if cls.__name__ != "DynamicCache":
            rewire(
                cls,
                unflatten=on_result(
                    lambda cache: getattr(cache, "self_attention_cache", None) or _plain_dynamic(cache)
                ),
            )


@mutant
def cross_attention_lost() -> None:
    """An EncoderDecoderCache comes back with its self-attention part twice."""
    _on("EncoderDecoderCache", lambda cache: setattr(cache, "cross_attention_cache", cache.self_attention_cache))


@mutant
def updates_forgotten() -> None:
    """An EncoderDecoderCache forgets which cross-attention layers were written."""
    _on("EncoderDecoderCache", lambda cache: cache.is_updated.clear())


@mutant
def updates_have_text_keys() -> None:
    """The layer numbers of ``is_updated`` come back as text, as JSON keys do."""
    _on(
        "EncoderDecoderCache",
        lambda cache: setattr(cache, "is_updated", {str(k): v for k, v in cache.is_updated.items()}),
    )


def _on(name: str, change: Callable[[Any], Any]) -> None:
    for cls in classes():
        if cls.__name__ == name:
            rewire(cls, unflatten=on_result(lambda cache: change(cache) and None))


def _layers(change: Callable[[Any], Any], attribute: str) -> None:
    """Change every layer that has an attribute, after unflattening."""

    def on_cache(cache: Any) -> None:
        for layer in layers_of(cache):
            if attribute in layer.__dict__:
                change(layer)

    _each(unflatten=on_result(on_cache))


@mutant
def length_zero() -> None:
    """Counters of lengths come back as 0; on the list path the count of seen tokens does."""
    _layers(lambda layer: setattr(layer, "cumulative_length", layer.cumulative_length * 0), "cumulative_length")
    _each(
        unflatten=on_result(
            lambda cache: cache.__dict__.update(_seen_tokens=0) if "_seen_tokens" in cache.__dict__ else None
        )
    )


@mutant
def length_from_shape() -> None:
    """The counter of a sliding layer is taken from its tensor, also past the window."""

    def change(layer: Any) -> None:
        if (
            hasattr(layer, "sliding_window")
            and isinstance(layer.cumulative_length, int)
            and isinstance(layer.keys, torch.Tensor)
        ):
            layer.cumulative_length = layer.keys.shape[-2]

    _layers(change, "cumulative_length")


@mutant
def length_off_by_one() -> None:
    """Counters of lengths come back one too large; on the list path the count of seen tokens does."""
    _layers(lambda layer: setattr(layer, "cumulative_length", layer.cumulative_length + 1), "cumulative_length")
    _each(
        unflatten=on_result(
            lambda cache: (
                cache.__dict__.update(_seen_tokens=cache._seen_tokens + 1) if "_seen_tokens" in cache.__dict__ else None
            )
        )
    )


@mutant
def window_from_shape() -> None:
    """A sliding layer's window is inferred from its tensor."""

    def change(layer: Any) -> None:
        if isinstance(layer.keys, torch.Tensor):
            layer.sliding_window = layer.keys.shape[-2]

    _layers(change, "sliding_window")


@mutant
def window_lost() -> None:
    """Sliding layers come back as plain growing layers."""

    def change(cache: Any) -> None:
        plain = lookup("transformers.cache_utils:DynamicLayer")
        for layer in layers_of(cache):
            if type(layer).__name__ == "DynamicSlidingWindowLayer":
                layer.__class__ = plain

    _each(unflatten=on_result(change))


@mutant
def maximum_lost() -> None:
    """Static caches come back with another maximum length."""
    _layers(lambda layer: setattr(layer, "max_cache_len", layer.max_cache_len + 1), "max_cache_len")
    _each(
        unflatten=on_result(
            lambda cache: cache.__dict__.update(max_cache_len=1) if "max_cache_len" in cache.__dict__ else None
        )
    )


@mutant
def initialization_forgotten() -> None:
    """Layers come back as if nothing had been written: the next update starts over."""
    _layers(lambda layer: setattr(layer, "is_initialized", False), "is_initialized")
    _each(
        unflatten=on_result(
            lambda cache: cache.__dict__.update(key_cache=[], value_cache=[]) if "key_cache" in cache.__dict__ else None
        )
    )


@mutant
def growth_forgotten() -> None:
    """A cache that grows new layers on demand comes back as one that does not.

    Or on the list path without ``_seen_tokens``.
    """

    def change(cache: Any) -> None:
        for name in ("layer_class_to_replicate", "layer_classes", "_seen_tokens"):
            if cache.__dict__.get(name) is not None:
                cache.__dict__[name] = None

    _each(unflatten=on_result(change))


@mutant
def paths_all_alike() -> None:
    """Every leaf has the same path."""
    _each(
        with_keys=lambda keyed: (
            lambda cache: ([(pytree.MappingKey("cache"), leaf) for _, leaf in keyed(cache)[0]], keyed(cache)[1])
        )
    )


@mutant
def paths_reversed() -> None:
    """Flattening with paths gives the leaves backwards."""
    _each(with_keys=lambda keyed: lambda cache: (keyed(cache)[0][::-1], keyed(cache)[1]))


@mutant
def fx_missing() -> None:
    """The classes are not in the tables of torch.fx."""
    for cls in classes():
        fx_pytree.SUPPORTED_NODES.pop(cls, None)


@mutant
def fx_reversed() -> None:
    """The tables of torch.fx give the leaves backwards."""
    for cls in classes():
        rewire_fx(cls, lambda leaves: leaves[::-1])


@mutant
def fx_one_short() -> None:
    """The tables of torch.fx give one leaf too few."""
    for cls in classes():
        rewire_fx(cls, lambda leaves: leaves[:-1])


@mutant
def only_dynamic() -> None:
    """Only DynamicCache is registered."""
    for cls in classes():
        if cls.__name__ != "DynamicCache":
            pytree.SUPPORTED_NODES.pop(cls)


@mutant
def no_serialized_name() -> None:
    """The classes have no serialized name: a saved program cannot tell them."""
    for cls in classes():
        pytree.SUPPORTED_SERIALIZED_TYPES.pop(cls, None)


@mutant
def tensors_in_the_context() -> None:
    """The last tensor is no leaf: it hides in the context."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            return leaves[:-1], [context, leaves[-1:]]

        return changed

    _each(
        flatten=wrap, unflatten=lambda unflatten: lambda values, context: unflatten([*values, *context[1]], context[0])
    )


@whole
def nothing_registered() -> Iterator[None]:
    """Nothing is registered; what transformers registered by itself is removed."""
    before = registry_snapshot()
    for cls in classes():
        pytree.SUPPORTED_NODES.pop(cls)
    try:
        yield
    finally:
        restore_registry(before)


@whole
def never_undone() -> Iterator[None]:
    """Leaving undoes nothing."""
    _KEPT.append(_context())
    _KEPT[-1].__enter__()
    yield


@whole
def not_undone_after_exception() -> Iterator[None]:
    """Leaving by an exception undoes nothing."""
    context = _context()
    _KEPT.append(context)
    context.__enter__()
    yield
    context.__exit__(None, None, None)


@whole
def swallows_exceptions() -> Iterator[None]:
    """An exception raised inside does not come out."""
    with _context(), contextlib.suppress(ValueError):
        yield


@whole
def inner_undoes_outer() -> Iterator[None]:
    """Leaving an inner context unregisters everything."""
    before = registry_snapshot()
    with _context():
        yield
    gone = classes()
    restore_registry(before)
    for cls in gone:
        pytree.SUPPORTED_NODES.pop(cls, None)


@whole
def undoes_too_much() -> Iterator[None]:
    """Leaving takes another class's node along."""
    from collections import OrderedDict

    with _context():
        yield
    pytree.SUPPORTED_NODES.pop(OrderedDict, None)


@whole
def replaces_others() -> Iterator[None]:
    """Entering replaces the node of dict."""
    before = registry_snapshot()
    with _context():
        node = pytree.SUPPORTED_NODES[dict]
        pytree.SUPPORTED_NODES[dict] = type(node)(
            dict,
            lambda d: node.flatten_fn(d),  # noqa: PLW0108 - another function object is the point
            node.unflatten_fn,
            node.flatten_with_keys_fn,
        )
        try:
            yield
        finally:
            pytree.SUPPORTED_NODES[dict] = before.tables["torch.utils._pytree.SUPPORTED_NODES"][dict]


@whole
def leaves_a_patch() -> Iterator[None]:
    """A method of transformers stays replaced."""
    cls = lookup("transformers.cache_utils:Cache")
    original = cls.__dict__["reorder_cache"]
    with _context():
        yield
    cls.reorder_cache = lambda self, beam_idx: original(self, beam_idx)  # noqa: PLW0108 - another function object is the point


@whole
def works_once() -> Iterator[None]:
    """Entering a second time does nothing."""
    if _ENTERED:
        yield
        return
    _ENTERED.append(True)
    with _context():
        yield


_ENTERED: list[bool] = []
# A context that is dropped is closed by the garbage collector, and undone after all.
_KEPT: list[Any] = []


@whole
def forgets_late_classes() -> Iterator[None]:
    """Leaving restores a copy of the tables, and with it forgets classes that registered themselves inside."""
    before = registry_snapshot()
    with _context():
        yield
    restore_registry(before, keep_model_outputs=False)


@whole
def leaves_safe_globals() -> Iterator[None]:
    """A class stays among the safe globals of torch.load."""
    with _context():
        yield
    torch.serialization.add_safe_globals([lookup("transformers.cache_utils:DynamicCache"), contextlib.ExitStack])
