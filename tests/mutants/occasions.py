"""Faults that show on some occasions only: in another thread, under a mode, for one exception, at the next entering."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.fx._pytree as fx_pytree
import torch.utils._pytree as pytree

from mutants.generated.wiring import cache_classes, owners, wire
from mutants.plant import kvconform_context, mutant, whole
from mutants.tools import classes, layers_of, on_result, on_values, rewire

_HERE = threading.local()
_ENTERINGS = [0]
_OWN = "own_"


def _is_of_transformers(cls: type) -> bool:
    return cls.__module__.startswith("transformers.")


def _base(cls: type) -> type:
    return next(one for one in cls.__mro__ if _is_of_transformers(one))


@mutant
def known_to_one_thread() -> None:
    """What was learned when a cache was flattened is kept for that thread; another one takes the leaves backwards."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            _HERE.knows = True
            return flatten(cache)

        return changed

    def order(values: list[Any]) -> list[Any]:
        return values if getattr(_HERE, "knows", False) else values[::-1]

    wire(flatten=wrap, unflatten=on_values(order))


@mutant
def new_tensors_where_the_default_is() -> None:
    """Tensors that are elsewhere than the default device are made anew on it."""

    def anew(value: Any) -> Any:
        made = isinstance(value, torch.Tensor) and torch.empty(()).device != value.device
        return torch.empty(value.shape, dtype=value.dtype) if made else value

    wire(unflatten=on_values(lambda values: [anew(value) for value in values]))


@mutant
def cast_to_the_default_type() -> None:
    """Keys and values have the default type again."""

    def cast(value: Any) -> Any:
        mine = isinstance(value, torch.Tensor) and value.dtype == torch.float32
        return value.to(torch.get_default_dtype()) if mine else value

    wire(unflatten=on_values(lambda values: [cast(value) for value in values]))


@mutant
def copies_in_inference_mode() -> None:
    """In inference mode tensors are copied; those that were made there are copied elsewhere."""

    def copied(value: Any) -> Any:
        mine = isinstance(value, torch.Tensor) and value.is_inference() != torch.is_inference_mode_enabled()
        return value.clone() if mine else value

    wire(unflatten=on_values(lambda values: [copied(value) for value in values]))


@mutant
def names_sorted_as_text() -> None:
    """The paths of leaves are given in the order of their text: key 10 is called key 2."""

    def sort(keyed: Any) -> Any:
        def changed(cache: Any) -> Any:
            named, context = keyed(cache)
            paths = sorted((path for path, _ in named), key=str)
            return [*zip(paths, (leaf for _, leaf in named), strict=True)], context

        return changed

    for cls in cache_classes():
        rewire(cls, with_keys=sort)


@mutant
def keys_named_values() -> None:
    """The paths of each two leaves are swapped."""

    def swap(keyed: Any) -> Any:
        def changed(cache: Any) -> Any:
            named, context = keyed(cache)
            paths = [path for path, _ in named]
            last = len(paths) - 1
            return [(paths[min(index ^ 1, last)], leaf) for index, (_, leaf) in enumerate(named)], context

        return changed

    for cls in cache_classes():
        rewire(cls, with_keys=swap)


@whole
def undone_after_usual_exceptions() -> Iterator[None]:
    """Ctrl-C leaves everything registered."""
    context = kvconform_context()
    context.__enter__()
    _HERE.kept = context
    try:
        yield
    except Exception as error:
        context.__exit__(type(error), error, error.__traceback__)
        raise
    else:
        context.__exit__(None, None, None)


@whole
def context_has_number_of_entering() -> Iterator[None]:
    """The context of a cache tells how often the registration was entered."""
    _ENTERINGS[0] += 1
    number = _ENTERINGS[0]

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            return leaves, [context, number]

        return changed

    with kvconform_context():
        wire(flatten=wrap, unflatten=lambda unflatten: lambda values, context: unflatten(values, context[0]))
        yield


@whole
def forgets_who_was_registered() -> Iterator[None]:
    """Leaving removes the nodes of cache classes, whoever had registered them before."""
    tables = (pytree.SUPPORTED_NODES, fx_pytree.SUPPORTED_NODES)
    with kvconform_context():
        mine = classes()
        yield
    for table in tables:
        for cls in mine:
            table.pop(cls, None)


@whole
def leaves_logging_silent() -> Iterator[None]:
    """Messages of torch's export stay off."""
    with kvconform_context():
        yield
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)


@mutant
def own_layers_lost() -> None:
    """A layer of a user's class is taken for the class of transformers that it is made from."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            if all(_is_of_transformers(type(layer)) for layer in layers_of(cache)):
                return flatten(cache)
            plain = copy.copy(cache)
            plain.layers = [copy.copy(layer) for layer in cache.layers]
            for layer in plain.layers:
                layer.__class__ = _base(type(layer))
                vars(layer).pop("own_note", None)
            return flatten(plain)

        return changed

    wire(flatten=wrap)


@mutant
def own_parts_lost() -> None:
    """A user's class inside an EncoderDecoderCache comes back as the class of transformers."""

    def back(cache: Any) -> None:
        for name in ("self_attention_cache", "cross_attention_cache"):
            part = getattr(cache, name, None)
            if part is not None and not _is_of_transformers(type(part)):
                part.__class__ = _base(type(part))

    wire(unflatten=on_result(back))


@mutant
def own_classes_without_fx() -> None:
    """A user's classes are not in the tables of torch.fx."""
    for cls in cache_classes():
        if not _is_of_transformers(cls):
            fx_pytree.SUPPORTED_NODES.pop(cls, None)


@mutant
def known_by_name_alone() -> None:
    """A class is known by its name alone: the JSON of a namesake's spec gives the class of transformers."""
    known = {cls.__name__: cls for cls in cache_classes() if _is_of_transformers(cls)}
    for cls in cache_classes():
        base = known.get(cls.__name__, cls)
        if base is not cls:
            entry = pytree.SUPPORTED_SERIALIZED_TYPES[base]
            pytree.SUPPORTED_SERIALIZED_TYPES[cls] = entry._replace(typ=cls)


@whole
def an_exception_undoes_all() -> Iterator[None]:
    """An exception that leaves an inner context takes the outer one's nodes along."""
    gone: list[type] = []
    try:
        with kvconform_context():
            gone = classes()
            yield
    except BaseException:
        for cls in gone:
            pytree.SUPPORTED_NODES.pop(cls, None)
        raise


@mutant
def counters_of_fifteen_bits() -> None:
    """Whole numbers past 32767 come back smaller by 32768."""

    def change(cache: Any) -> None:
        for owner in owners(cache):
            for name, value in vars(owner).items():
                if type(value) is int and value >= 1 << 15:
                    vars(owner)[name] = value - (1 << 15)

    wire(unflatten=on_result(change))


@mutant
def plans_by_number_of_leaves() -> None:
    """The structure of the first cache with so many leaves serves every other with as many."""
    held: dict[int, Any] = {}

    def wrap(unflatten: Any) -> Any:
        def changed(values: Any, context: Any) -> Any:
            values = list(values)
            return unflatten(values, held.setdefault(len(values), context))

        return changed

    wire(unflatten=wrap)


@mutant
def attributes_on_tensors() -> None:
    """What a user set stands on the first tensor, not in the structure: `tree_map` loses it."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            for leaf in leaves[:1]:
                if isinstance(leaf, torch.Tensor):
                    leaf._told = True
            return leaves, context

        return changed

    def wrap_back(unflatten: Any) -> Any:
        def changed(values: Any, context: Any) -> Any:
            values = list(values)
            cache = unflatten(values, context)
            if values and isinstance(values[0], torch.Tensor) and not hasattr(values[0], "_told"):
                for owner in owners(cache):
                    for name in [name for name in vars(owner) if name.startswith(_OWN)]:
                        delattr(owner, name)
            return cache

        return changed

    wire(flatten=wrap, unflatten=wrap_back)


@mutant
def not_a_number_is_nothing() -> None:
    """Numbers that JSON lacks (NaN, the infinities) come back as None from a list that a user set."""

    def change(cache: Any) -> None:
        for owner in owners(cache):
            for name, value in vars(owner).items():
                if name.startswith(_OWN) and isinstance(value, list):
                    strange = [isinstance(one, float) and one - one != 0 for one in value]
                    vars(owner)[name] = [None if odd else one for one, odd in zip(value, strange, strict=True)]

    wire(unflatten=on_result(change))


@mutant
def busy_after_an_error() -> None:
    """A guard against caches that hold themselves stays where flattening raised: the cache has no leaves then."""
    busy: set[int] = set()

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            if id(cache) in busy:
                return [], []
            busy.add(id(cache))
            found = flatten(cache)
            busy.discard(id(cache))
            return found

        return changed

    wire(flatten=wrap)


_BY_NAME: dict[str, type] = {}


@mutant
def class_by_its_name() -> None:
    """Which class a name stands for is remembered: one that is defined again comes back as the first."""
    for cls in cache_classes():
        first = _BY_NAME.setdefault(f"{cls.__module__}.{cls.__qualname__}", cls)

        def back(cache: Any, first: type = first) -> None:
            cache.__class__ = first

        if first is not cls:
            wire(unflatten=on_result(back), classes=[cls])
