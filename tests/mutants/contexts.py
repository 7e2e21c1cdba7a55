"""Contexts that hold what they must not, and classes that the context loses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kvconform.checks.needs import lookup
from mutants.plant import each, mutant
from mutants.tools import classes, layers_of, on_result, rewire


def with_context(extra: Callable[[Any], Any]) -> None:
    """Put something into the context that depends on the cache."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            return leaves, [context, extra(cache)]

        return changed

    each(flatten=wrap, unflatten=lambda unflatten: lambda values, context: unflatten(values, context[0]))


@mutant
def context_has_length() -> None:
    """The context tells the sequence length: no next token fits an exported program."""
    with_context(lambda cache: int(cache.get_seq_length()))


def _batch_of(cache: Any) -> int:
    held = [layer.keys for layer in layers_of(cache)] or vars(cache).get("key_cache", [])
    return held[0].shape[0] if held and isinstance(held[0], torch.Tensor) else 0


@mutant
def context_has_batch_size() -> None:
    """The context tells the batch size: an exported program takes no other."""
    with_context(_batch_of)


@mutant
def context_is_new_each_time() -> None:
    """The context is an object that equals nothing."""
    with_context(lambda cache: object())


@mutant
def context_has_class() -> None:
    """The context has a class in it, which JSON cannot hold."""
    with_context(type)


@mutant
def context_has_tuple() -> None:
    """The context has a tuple in it, which comes back from JSON as a list."""
    with_context(lambda cache: ("layers", len(layers_of(cache))))


@mutant
def tensors_in_the_context() -> None:
    """The last tensor is no leaf: it hides in the context."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            return leaves[:-1], [context, leaves[-1:]]

        return changed

    each(
        flatten=wrap, unflatten=lambda unflatten: lambda values, context: unflatten([*values, *context[1]], context[0])
    )


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


def _on(name: str, change: Callable[[Any], Any]) -> None:
    for cls in classes():
        if cls.__name__ == name:
            rewire(cls, unflatten=on_result(lambda cache: change(cache) and None))


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


class _Interned(list[Any]):
    """A context that is made once, so that comparing objects is enough; a copy is another object."""

    def __eq__(self, other: object) -> bool:
        return self is other if isinstance(other, _Interned) else list.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]


@mutant
def contexts_are_equal_if_identical() -> None:
    """Contexts are made once and compared by identity: a spec that was copied or pickled equals none."""
    made: dict[str, _Interned] = {}

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            return leaves, made.setdefault(repr(context), _Interned(context))

        return changed

    each(flatten=wrap)
