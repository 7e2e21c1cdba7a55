"""The flatten and unflatten functions of every cache class, under the names that exporters use.

Each class has three: `flatten_*` gives leaves and context, `flatten_with_keys_*` pairs each leaf with the key that
names it, `unflatten_*` gives the cache back. One pair of functions serves every class; the names per class exist
because exporters import them.
"""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from kvconform import lists, probes
from kvconform.context import Lists, names_a_leaf
from kvconform.layers import reading, writing
from kvconform.pytree import Node, keyed

__all__ = [
    "cache_node",
    "flatten_cache",
    "flatten_counted_cache",
    "flatten_dynamic_cache",
    "flatten_encoder_decoder_cache",
    "flatten_static_cache",
    "flatten_with_keys_cache",
    "flatten_with_keys_counted_cache",
    "flatten_with_keys_dynamic_cache",
    "flatten_with_keys_encoder_decoder_cache",
    "flatten_with_keys_static_cache",
    "make_flattening_function_for_dataclass",
    "model_output_node",
    "unflatten_cache",
    "unflatten_dynamic_cache",
    "unflatten_encoder_decoder_cache",
    "unflatten_static_cache",
]

Flat = tuple[list[Any], list[str]]
KeyedFlat = tuple[list[tuple[Any, Any]], list[str]]


def flatten_cache(cache: Any) -> Flat:
    """Children and context of any cache.

    Returns:
        Children: keys and values in layer order, then what else the cache remembers as tensors, without a copy;
        the inner caches of an EncoderDecoderCache, which are nodes of their own. Context: JSON-able text, equal for
        caches of equal structure whatever their lengths (the grammar: `kvconform.context`).

    Raises:
        UnknownLayerError: the cache holds a layer or an attribute that nothing describes.
    """
    return _flatten(cache, counted=False)


def flatten_counted_cache(cache: Any) -> Flat:
    """Like `flatten_cache`, but a sliding layer has one structure for all lengths.

    Its counter is a leaf below its window too, an int. What either function gave is rebuilt by `unflatten_cache`.
    """
    return _flatten(cache, counted=True)


def _flatten(cache: Any, *, counted: bool) -> Flat:
    if not probes.has_layers():
        return lists.flatten(cache)
    if "key_cache" in vars(cache):
        # Caches of single models kept the lists when transformers' own went over to layers (Jamba, Zamba, 4.54 on).
        children, context = lists.flatten(cache)
        return children, [*context, Lists.text()]
    return writing.flatten(cache, counted=counted)


def flatten_with_keys_cache(cache: Any) -> KeyedFlat:
    """Like `flatten_cache`, each child with the key path entry that names it."""
    children, context = flatten_cache(cache)
    return _keyed(children, context), context


def flatten_with_keys_counted_cache(cache: Any) -> KeyedFlat:
    """Like `flatten_counted_cache`, each child with the key path entry that names it."""
    children, context = flatten_counted_cache(cache)
    return _keyed(children, context), context


def _keyed(children: list[Any], context: list[str]) -> list[tuple[Any, Any]]:
    return keyed((entry for entry in context if names_a_leaf(entry)), children)


def unflatten_cache(cls: type, children: Iterable[Any], context: list[str]) -> Any:
    """A cache of class `cls` with these children, none of them copied.

    Raises:
        CacheStructureError: children and context are not of one structure.
        UnknownLayerError: the context names a layer class that this release lacks.
    """
    if not probes.has_layers():
        return lists.unflatten(cls, children, context)
    if context and context[-1] == Lists.text():
        return lists.unflatten(cls, children, context[:-1])
    return reading.unflatten(cls, children, context)


def cache_node(cls: type, *, counted: bool = False) -> Node:
    """The node of a cache class, ready to be put into torch's tables.

    Args:
        cls: the class.
        counted: flatten with `flatten_counted_cache`, so that a sliding layer has one structure for all lengths.
    """

    def unflatten(children: Iterable[Any], context: list[str], output_type: type | None = None) -> Any:
        return unflatten_cache(output_type or cls, children, context)

    return Node(
        cls=cls,
        flatten=flatten_counted_cache if counted else flatten_cache,
        unflatten=unflatten,
        flatten_with_keys=flatten_with_keys_counted_cache if counted else flatten_with_keys_cache,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
    )


def flatten_dynamic_cache(dynamic_cache: Any) -> Flat:
    """Children and context of a DynamicCache: `['key_D_0', 'value_D_0', 'key_W3_1', 'value_W3_1']`."""
    return flatten_cache(dynamic_cache)


def flatten_with_keys_dynamic_cache(dynamic_cache: Any) -> KeyedFlat:
    """Like `flatten_dynamic_cache`, each child with its key."""
    return flatten_with_keys_cache(dynamic_cache)


def unflatten_dynamic_cache(values: Iterable[Any], context: Any, output_type: type | None = None) -> Any:
    """The DynamicCache (or `output_type`) that was flattened."""
    return unflatten_cache(output_type or _class("DynamicCache"), values, context)


def flatten_static_cache(cache: Any) -> Flat:
    """Children and context of a StaticCache."""
    return flatten_cache(cache)


def flatten_with_keys_static_cache(cache: Any) -> KeyedFlat:
    """Like `flatten_static_cache`, each child with its key."""
    return flatten_with_keys_cache(cache)


def unflatten_static_cache(values: Iterable[Any], context: Any, output_type: type | None = None) -> Any:
    """The StaticCache (or `output_type`) that was flattened."""
    return unflatten_cache(output_type or _class("StaticCache"), values, context)


def flatten_encoder_decoder_cache(ec_cache: Any) -> Flat:
    """The two inner caches of an EncoderDecoderCache, as nodes of their own, and which cross layers are filled."""
    return flatten_cache(ec_cache)


def flatten_with_keys_encoder_decoder_cache(ec_cache: Any) -> KeyedFlat:
    """Like `flatten_encoder_decoder_cache`, each child with its key."""
    return flatten_with_keys_cache(ec_cache)


def unflatten_encoder_decoder_cache(values: Iterable[Any], context: Any, output_type: type | None = None) -> Any:
    """The EncoderDecoderCache (or `output_type`) that was flattened."""
    return unflatten_cache(output_type or _class("EncoderDecoderCache"), values, context)


def _class(name: str) -> type:
    cls = probes.cache_class(name)
    if cls is None:
        raise AttributeError(f"transformers.cache_utils has no {name} ({probes.release()})")
    return cls


def make_flattening_function_for_dataclass(
    cls: type, supported_classes: set[type]
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Make the three functions for a class with `keys()` and `values()` like a mapping (ModelOutput and others).

    Args:
        cls: the class. Its instances can be made empty and filled by item.
        supported_classes: `cls` is added, so that a caller can tell which classes it has made functions for.

    Returns:
        flatten, flatten with keys, unflatten, named after the class in snake case.
    """

    def flatten(obj: Any) -> Flat:
        return list(obj.values()), list(obj.keys())

    def flatten_with_keys(obj: Any) -> KeyedFlat:
        names = list(obj.keys())
        return keyed(names, obj.values()), names

    def unflatten(values: Iterable[Any], context: Any, output_type: type | None = None) -> Any:
        return _fill_mapping(output_type or cls, dict(zip(context, values, strict=True)))

    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
    for function, prefix in ((flatten, "flatten"), (flatten_with_keys, "flatten_with_keys"), (unflatten, "unflatten")):
        function.__name__ = function.__qualname__ = f"{prefix}_{name}"
    supported_classes.add(cls)
    return flatten, flatten_with_keys, unflatten


def _fill_mapping(cls: type, items: dict[str, Any]) -> Any:
    """An instance with exactly these items.

    A ModelOutput's constructor looks into its first field and takes a list of pairs for the whole output
    (transformers' own unflatten goes through it), so that its fields are set one by one here.
    """
    if not dataclasses.is_dataclass(cls):
        return cls(items)
    made: Any = cls.__new__(cls)
    made.__dict__.update({**{field.name: None for field in dataclasses.fields(cls)}, **items})
    for name, value in items.items():
        # Not the class's own: it would call __setattr__, which ModelOutput overrides to call back.
        OrderedDict.__setitem__(made, name, value)
    return made


def model_output_node(cls: type) -> Node:
    """The node of a ModelOutput class."""
    flatten, flatten_with_keys, unflatten = make_flattening_function_for_dataclass(cls, set())
    return Node(cls, flatten, unflatten, flatten_with_keys, f"{cls.__module__}.{cls.__name__}")
