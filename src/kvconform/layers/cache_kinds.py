"""What is known of each cache class: the attributes of a new cache, and those that follow from its parts.

A context mentions neither. Rebuilding puts them back from here.
"""

from __future__ import annotations

from typing import Any

import torch

from kvconform import probes
from kvconform.attributes import in_mapping, in_order, same
from kvconform.learned import CACHES, CacheModel
from kvconform.origins import derived

__all__ = ["are_unused", "cache_model_of", "layers_that_a_new_cache_has", "names_from_parts", "values_from_parts"]

_GIVEN = frozenset({"layers", "self_attention_cache", "cross_attention_cache", "is_updated", "is_compileable"})
_KEPT_ARGUMENTS = ("cache_processor", "layer_classes", "layer_init_kwargs", "num_hidden_layers")
# In the order in which these releases keep them.
_ARGUMENTS = ("batch_size", "max_cache_len", "device", "dtype", "head_dim", "num_heads")


def cache_model_of(cls: type) -> CacheModel:
    """What is known of a cache class, which is tried once if need be."""
    model = CACHES.get(cls)
    return _learn(cls) if model is None else model


def _learn(cls: type) -> CacheModel:
    with torch.utils._python_dispatch._disable_current_modes():
        try:
            made = _new_cache(cls)
        except Exception:  # noqa: BLE001 (OffloadedCache wants a GPU, QuantizedCache a package, StaticCache a config, ...)
            # StaticCache wants a config; what it shares with the base class (4.56 and later) is known from there.
            keeps = "layer_init_kwargs" in probes.names_in_code(cls)
            CACHES[cls] = CacheModel(_base_defaults(), keeps_arguments=keeps, slotted=bool(probes.slots(cls)))
        else:
            holds_caches = _holds_caches(cls)
            CACHES[cls] = CacheModel(
                {name: value for name, value in in_mapping(made).items() if name not in _GIVEN},
                holds_caches=holds_caches,
                unused=vars(made).get("layers") if holds_caches else None,
                keeps_compileable=holds_caches and "is_compileable" in vars(made),
                slotted=bool(probes.slots(cls)),
            )
    return CACHES[cls]


def _holds_caches(cls: type) -> bool:
    return issubclass(cls, probes.cache_class("EncoderDecoderCache") or ())


def _new_cache(cls: type) -> Any:
    if not _holds_caches(cls):
        return cls()
    inner: Any = probes.cache_class("DynamicCache")
    return cls(inner(), inner())


def _base_defaults() -> dict[str, Any]:
    try:
        made = probes.cache_class("Cache")(layers=[])  # type: ignore[misc]
    except TypeError:
        return {}
    return {name: value for name, value in in_mapping(made).items() if name != "layers"}


def layers_that_a_new_cache_has(cls: type) -> list[Any] | None:
    """The layers of every new cache of a class, which a context does not mention. None: it has no list of layers.

    They are the unused ones of an EncoderDecoderCache; for other classes [].
    """
    model = cache_model_of(cls)
    return model.unused if model.holds_caches else []


def are_unused(cls: type, layers: list[Any] | None) -> bool:
    """Whether these are the layers that every new cache of a class made of caches has and nothing writes to."""
    model = cache_model_of(cls)
    if not model.holds_caches:
        return False
    unused = model.unused
    if layers is None or unused is None:
        return layers is None and unused is None
    return len(layers) == len(unused) and all(
        type(layer) is type(one) and same(in_order(vars(layer), type(layer)), in_order(vars(one), type(one)))
        for layer, one in zip(layers, unused, strict=True)
    )


def names_from_parts(cls: type) -> tuple[str, ...]:
    """The attributes of a cache that follow from its parts: its layers, or the caches in it."""
    model = cache_model_of(cls)
    kept = _KEPT_ARGUMENTS if model.keeps_arguments else ()
    return (*kept, "is_compileable") if model.keeps_compileable else kept


def values_from_parts(cls: type, state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of `names_from_parts` and their values, as they follow from the parts.

    Args:
        cls: the class.
        state: the attributes of a cache, its `layers` or caches among them.
    """
    model = cache_model_of(cls)
    found = _kept_arguments(state["layers"]) if model.keeps_arguments and state.get("layers") else {}
    if model.keeps_compileable:
        found["is_compileable"] = getattr(state.get("self_attention_cache"), "is_compileable", False)
    return found


def _kept_arguments(layers: list[Any]) -> dict[str, Any]:
    """What the constructors of 4.54 and 4.55 keep beside the layers that they made.

    If it stood in the context, the batch size would stand there too, and an exported program would take no other.
    """
    first = layers[0]
    arguments = {
        name: getattr(first, name, None) if name == "max_cache_len" else derived(name, vars(first), first.keys)
        for name in _ARGUMENTS
    }
    classes = [type(layer) for layer in layers]
    return {
        "cache_processor": None,
        "layer_classes": classes[0] if all(one is classes[0] for one in classes) else classes,
        "layer_init_kwargs": arguments,
        "num_hidden_layers": len(layers),
    }
