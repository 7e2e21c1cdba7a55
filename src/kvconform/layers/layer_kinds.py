"""What is known of each layer class: its letters in a context, and the attribute whose number follows them.

| code | layer class | number in the code |
|---|---|---|
| D | DynamicLayer | |
| W | DynamicSlidingWindowLayer | sliding_window |
| S | StaticLayer | max_cache_len |
| X | StaticSlidingWindowLayer (4.57 and later), SlidingWindowLayer (4.54 to 4.56) | max_cache_len |
| XS | SlidingWindowLayer (4.57, a subclass of the above) | max_cache_len |
| C | ChunkedSlidingLayer | max_cache_len |
| I | DynamicIndexedLayer | |
| J | StaticIndexedLayer | max_cache_len |
| L | LinearAttentionLayer | |
| LD | LinearAttentionAndFullAttentionLayer | |
| LW | LinearAttentionAndSlidingWindowAttentionLayer | sliding_window |
| LS | LinearAttentionAndStaticFullAttentionLayer | max_cache_len |
| LX | LinearAttentionAndStaticSlidingWindowAttentionLayer | max_cache_len |
| F | Fp8QuantizedLayer | |
| Q | QuantoQuantizedLayer | |
| H | HQQQuantizedLayer | |
| Z | DummyLayer | |
| K | a layer of SinkCache (no layer class: 4.44 to 4.52) | window_length |
| M... | a class in `transformers.models`: M, and the code of its base (`model_layers`) | that of the base |

`register_layer` adds a class of one's own. D, W, S and X are the codes of the seeds, the others were free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from kvconform import learned, probes
from kvconform.errors import CacheStructureError, KVConformError, UnknownLayerError
from kvconform.layers import model_layers
from kvconform.learned import LAYERS, LAYERS_BY_CODE, LayerModel
from kvconform.origins import COUNTERS, TENSORS_OF_A_LAYER, is_derived

__all__ = ["code_of", "learn_layers", "model_by_code", "model_by_name", "model_of", "register_layer"]

_WINDOW = "sliding_window"
_LENGTH = "max_cache_len"


@dataclass(frozen=True)
class _Row:
    """One row of the table above."""

    code: str
    config: str | None = None


_KNOWN: dict[str, _Row] = {
    "DynamicLayer": _Row("D"),
    "DynamicSlidingWindowLayer": _Row("W", _WINDOW),
    "StaticLayer": _Row("S", _LENGTH),
    "StaticSlidingWindowLayer": _Row("X", _LENGTH),
    "SlidingWindowLayer": _Row("XS", _LENGTH),
    "ChunkedSlidingLayer": _Row("C", _LENGTH),
    "DynamicIndexedLayer": _Row("I"),
    "StaticIndexedLayer": _Row("J", _LENGTH),
    "LinearAttentionLayer": _Row("L"),
    "LinearAttentionAndFullAttentionLayer": _Row("LD"),
    "LinearAttentionAndSlidingWindowAttentionLayer": _Row("LW", _WINDOW),
    "LinearAttentionAndStaticFullAttentionLayer": _Row("LS", _LENGTH),
    "LinearAttentionAndStaticSlidingWindowAttentionLayer": _Row("LX", _LENGTH),
    "Fp8QuantizedLayer": _Row("F"),
    "QuantoQuantizedLayer": _Row("Q"),
    "HQQQuantizedLayer": _Row("H"),
    "DummyLayer": _Row("Z"),
}
# What register_layer was called with. It is no answer of the release, so that forgetting those keeps it.
_OWN: dict[type, _Row] = {}

# Arguments with which any known layer can be made as an example. Sizes of one: 4.54 and 4.55 allocate at once.
_TINY: dict[str, Any] = {"max_cache_len": 1, "batch_size": 1, "num_heads": 1, "head_dim": 1, "sliding_window": 1}


def code_of(model: LayerModel, state: dict[str, Any]) -> str:
    """The code of a layer with its number, `W4`."""
    return model.code if model.config is None else f"{model.code}{state[model.config]}"


def register_layer(cls: type, code: str, config: str | None = None) -> None:
    """Teach kvconform a layer class of a model's or of your own.

    Attributes of its instances are written as they are found: tensors as leaves, the rest as JSON.

    Args:
        cls: the class. Its instances have `keys` and `values`, tensors or None.
        code: capital letters, not used by another class.
        config: the attribute with the layer's one number (a window, a maximum length), if it has one.

    Raises:
        KVConformError: the code is taken or not capital letters.
    """
    if not (code.isascii() and code.isalpha() and code.isupper()):
        raise KVConformError(f"a layer code is capital letters, {code!r} is not: choose another")
    owner = next((c for c, row in _OWN.items() if row.code == code and c is not cls), None)
    known = next((name for name, row in _KNOWN.items() if row.code == code), None)
    if owner is not None or known is not None:
        raise KVConformError(f"the code {code} belongs to {known or getattr(owner, '__name__', owner)}: choose another")
    _OWN[cls] = _Row(code, config)
    learned.forget(cls)
    model_of(cls)


def model_of(cls: type) -> LayerModel:
    """What is known of a layer class.

    Raises:
        UnknownLayerError: nothing is.
    """
    model = LAYERS.get(cls)
    return _learn(cls) if model is None else model


def learn_layers() -> None:
    """Try every layer class of this release now, since none can be tried inside a trace."""
    for name in _KNOWN:
        cls = probes.cache_class(name)
        if cls is not None:
            model_of(cls)
    for cls in _OWN:
        model_of(cls)
    for cls in model_layers.layer_classes_of_models():
        # One whose base is not known is refused when it is met.
        if cls not in LAYERS and _known_base(cls) is not None:
            model_of(cls)


def _learn(cls: type) -> LayerModel:
    row = _OWN.get(cls) or _known(cls)
    if row is None and _known_base(cls) is not None:
        LAYERS[cls] = model_by_name(model_layers.name_of(cls))
        return LAYERS[cls]
    if row is None:
        raise UnknownLayerError(
            f"{cls.__module__}.{cls.__qualname__} is a cache layer that kvconform does not know ({probes.release()}): "
            f"call kvconform.register_layer({cls.__name__}, code=...) once, before registering"
        )
    if row.code == "XS" and probes.cache_class("StaticSlidingWindowLayer") is None:
        row = _Row("X", row.config)
    fresh, ready = _examples(cls)
    constants = tuple((name, value) for name, value in ready.items() if _is_constant(name, row))
    LAYERS[cls] = LayerModel(cls, row.code, row.config, fresh, ready, constants)
    LAYERS_BY_CODE[row.code] = LAYERS[cls]
    return LAYERS[cls]


def _known(cls: type) -> _Row | None:
    return _KNOWN.get(cls.__name__) if cls is probes.cache_class(cls.__name__) else None


def _known_base(cls: type) -> type | None:
    """The nearest base that is known, of a class that lives with its model."""
    if not model_layers.is_of_a_model(cls):
        return None
    return next((base for base in cls.__mro__[1:] if _known(base) is not None), None)


def model_by_name(reference: str) -> LayerModel:
    """The model of a class in `transformers.models`, called `module:Name`: that of its base, and what can change.

    A context can name it after its class was given a code too (`register_layer`), and is read as it was written.

    Raises:
        CacheStructureError: there is no such class, or it is no layer of a kind that is known.
    """
    model = LAYERS_BY_CODE.get(reference)
    if model is not None and model.reference == reference:
        return model
    cls = model_layers.class_named(reference)
    base = _known_base(cls)
    if base is None:
        raise CacheStructureError(
            f"the context gives a layer the class {reference}, which is no cache layer of a known kind "
            f"({probes.release()}): pass the context of a flatten"
        )
    changing, changing_inside = model_layers.numbers_that_change(cls, base)
    known = model_of(base)
    LAYERS_BY_CODE[reference] = replace(
        known,
        cls=cls,
        code=f"M{known.code}",
        reference=reference,
        changing=changing,
        changing_inside=changing_inside,
    )
    return LAYERS_BY_CODE[reference]


def _is_constant(name: str, row: _Row) -> bool:
    """Whether neither the tensors of a layer nor its code determine an attribute."""
    return name not in {*TENSORS_OF_A_LAYER, *COUNTERS, row.config} and not is_derived(name)


def model_by_code(letters: str) -> LayerModel:
    """The model whose code is `letters` on this release.

    Raises:
        UnknownLayerError: this release has no such class.
    """
    model = LAYERS_BY_CODE.get(letters)
    if model is None:
        learn_layers()
        model = LAYERS_BY_CODE.get(letters)
    if model is not None:
        return model
    names = ", ".join(name for name, row in _KNOWN.items() if row.code == letters) or "no class of transformers"
    raise UnknownLayerError(
        f"the context has a layer of code {letters} ({names}), which this release lacks ({probes.release()}): "
        "load it with a release that has the class, or call kvconform.register_layer first"
    )


def _examples(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """State of an example before and after its first tensors; empty where the class cannot be tried."""
    with torch.utils._python_dispatch._disable_current_modes():
        try:
            fresh = cls(**_tiny_arguments(cls))
            ready = cls(**_tiny_arguments(cls))
            _fill(ready)
        except Exception:  # noqa: BLE001 (each class has its own way of wanting a config or a package)
            # Its package is missing (quanto, hqq), or its constructor wants arguments of its own. Nothing is known of
            # it then, and a context mentions all of its attributes.
            return {}, {}
    return _without_tensors(fresh), _without_tensors(ready)


def _without_tensors(layer: Any) -> dict[str, Any]:
    # They are the layer's own and never taken over; and copying them inside torch.export would be traced.
    return {name: None if isinstance(value, torch.Tensor) else value for name, value in vars(layer).items()}


def _tiny_arguments(cls: type) -> dict[str, Any]:
    names = probes.constructor_parameters(cls)
    return {name: value for name, value in _TINY.items() if name in names}


def _fill(layer: Any) -> None:
    one = torch.zeros(1, 1, 1, 1)
    names = probes.allocation_parameters(type(layer))
    if names is None:
        if getattr(layer, "keys", one) is None:
            layer.update(one, one)
    elif "conv_states" not in names:
        layer.lazy_initialization(*(one,) * (2 if len(names) != 1 else 1))
