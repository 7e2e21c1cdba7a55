"""What is known of each cache class: the attributes that a new cache has, and those that follow from its layers.

Both need no words in a context. What a context leaves out is put back from here (kvconform.plans, kvconform.legacy).
"""

from __future__ import annotations

from typing import Any

import torch

from kvconform import probes
from kvconform.layers import derived
from kvconform.state import attributes, in_order, same

__all__ = [
    "are_unused",
    "defaults_of",
    "is_compileable",
    "learn_cache",
    "settings_names",
    "settings_of",
    "tells_compileable",
    "unused_layers_of",
]

# Plain tables, for the same reason as in kvconform.layers.model_of.
_DEFAULTS: dict[type, dict[str, Any]] = {}
_UNUSED: dict[type, list[Any] | None] = {}
_KEEPS_SETTINGS: set[type] = set()
_TELLS_COMPILEABLE: set[type] = set()


def defaults_of(cls: type) -> dict[str, Any]:
    """Attributes of a new cache, its layers and what it was given aside. Empty if nothing is known."""
    defaults = _DEFAULTS.get(cls)
    return learn_cache(cls) if defaults is None else defaults


_GIVEN = frozenset({"layers", "self_attention_cache", "cross_attention_cache", "is_updated", "is_compileable"})
_SETTINGS = ("cache_processor", "layer_classes", "layer_init_kwargs", "num_hidden_layers")
_ARGUMENTS = ("batch_size", "device", "dtype", "head_dim", "num_heads")


def learn_cache(cls: type) -> dict[str, Any]:
    """Try a cache class once."""
    with torch.utils._python_dispatch._disable_current_modes():
        try:
            made = _new_cache(cls)
        except Exception:  # noqa: BLE001 (OffloadedCache wants a GPU, QuantizedCache a package, StaticCache a config, ...)
            # StaticCache wants a config; what it shares with the base class (4.56 and later) is known from there.
            found = _base_defaults()
            if "layer_init_kwargs" in probes.names_in_code(cls):
                _KEEPS_SETTINGS.add(cls)
        else:
            found = {name: value for name, value in attributes(made).items() if name not in _GIVEN}
            if _holds_caches(cls):
                _UNUSED[cls] = vars(made).get("layers")
            if _holds_caches(cls) and "is_compileable" in vars(made):
                _TELLS_COMPILEABLE.add(cls)
    _DEFAULTS[cls] = found
    return found


def _holds_caches(cls: type) -> bool:
    return issubclass(cls, probes.cache_class("EncoderDecoderCache") or ())


def _new_cache(cls: type) -> Any:
    if not _holds_caches(cls):
        return cls()
    inner: Any = probes.cache_class("DynamicCache")
    return cls(inner(), inner())


def unused_layers_of(cls: type) -> list[Any] | None:
    """The layers of its own that every new cache of a class has, and nothing ever writes to; None if it has no list.

    EncoderDecoderCache has one such layer in 4.54 and 4.55, and no list since. For other classes: [].
    """
    defaults_of(cls)
    return _UNUSED.get(cls, [])


def are_unused(cls: type, layers: list[Any] | None) -> bool:
    """Whether these are the layers that every new cache of a class has, so that they need no words."""
    defaults_of(cls)
    if cls not in _UNUSED:
        return False
    usual = _UNUSED[cls]
    if layers is None or usual is None:
        return layers is None and usual is None
    return len(layers) == len(usual) and all(
        type(layer) is type(one) and same(in_order(vars(layer), type(layer)), in_order(vars(one), type(one)))
        for layer, one in zip(layers, usual, strict=True)
    )


def settings_of(cls: type, layers: Any) -> dict[str, Any]:
    """What the constructors of 4.54 and 4.55 keep beside the layers that they made, as it follows from these layers.

    With it in the context, the batch size would be there too, and a program would take no other. Empty for other
    releases, and for classes that are made without a config.
    """
    defaults_of(cls)
    if cls not in _KEEPS_SETTINGS or not layers:
        return {}
    first = layers[0]
    arguments = {name: derived(name, vars(first), first.keys) for name in _ARGUMENTS}
    classes = [type(layer) for layer in layers]
    return {
        "cache_processor": None,
        "layer_classes": classes[0] if all(one is classes[0] for one in classes) else classes,
        "layer_init_kwargs": {**arguments, "max_cache_len": getattr(first, "max_cache_len", None)},
        "num_hidden_layers": len(layers),
    }


def settings_names(cls: type) -> tuple[str, ...]:
    """The names in `settings_of` of such a class."""
    defaults_of(cls)
    return _SETTINGS if cls in _KEEPS_SETTINGS else ()


def tells_compileable(cls: type) -> bool:
    """Whether each instance of a class has `is_compileable` (EncoderDecoderCache of 4.49 to 4.55)."""
    defaults_of(cls)
    return cls in _TELLS_COMPILEABLE


def is_compileable(state: dict[str, Any]) -> Any:
    """What such an instance says: what the cache of its decoder says.

    Args:
        state: its attributes.
    """
    return getattr(state["self_attention_cache"], "is_compileable", False)


def _base_defaults() -> dict[str, Any]:
    try:
        made = probes.cache_class("Cache")(layers=[])  # type: ignore[misc]
    except TypeError:
        return {}
    return {name: value for name, value in attributes(made).items() if name != "layers"}
