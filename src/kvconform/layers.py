"""What is known of each layer class: its letter code, its configuration, and which attributes follow from the rest.

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

`register_layer` adds a class of one's own. D, W, S and X are the codes of the seeds, the others were free.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from kvconform import probes
from kvconform.errors import KVConformError, UnknownLayerError

__all__ = [
    "FROM_CONFIG",
    "LayerModel",
    "code_of",
    "derived",
    "is_derived",
    "learn_layers",
    "length_of",
    "model_by_code",
    "model_of",
    "reference_of",
    "register_layer",
]

_WINDOW = "sliding_window"
_LENGTH = "max_cache_len"


COUNTERS = frozenset(
    {
        "cumulative_length",
        "cumulative_length_int",
        "_seen_tokens",
        "erased_length",
        "_previous_number_of_accepted_tokens",
        "seqlen_offset",
    }
)
"""Attributes that count tokens. They are derived or leaves, never context (rule: a spec never tells a length)."""


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
_OWN: dict[type, _Row] = {}
_MODELS: dict[type, LayerModel] = {}
_BY_CODE: dict[str, LayerModel] = {}

# Arguments with which any known layer can be made as an example. Sizes of one: 4.54 and 4.55 allocate at once.
_TINY: dict[str, Any] = {"max_cache_len": 1, "batch_size": 1, "num_heads": 1, "head_dim": 1, "sliding_window": 1}
_SHAPE_DIMS = 4


@dataclass(frozen=True)
class LayerModel:
    """What a layer class remembers, learnt from an example of this release.

    Attributes:
        cls: the class.
        code: letters of the table above.
        config: the attribute whose value follows the letters in the code, if any.
        fresh: attributes and values of an example before its first update.
        ready: attributes and values after it. Values that a layer has in common with these need no words.
        constants: those of `ready` that neither tensors nor the code tell.
    """

    cls: type
    code: str
    config: str | None
    fresh: dict[str, Any]
    ready: dict[str, Any]
    constants: tuple[tuple[str, Any], ...] = ()


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
    _MODELS.pop(cls, None)
    model_of(cls)


def model_of(cls: type) -> LayerModel:
    """What is known of a layer class.

    Raises:
        UnknownLayerError: nothing is.
    """
    # A plain table, not a cached function: strict export reads it while it traces, which it can do with a global.
    model = _MODELS.get(cls)
    return _learn(cls) if model is None else model


def learn_layers() -> None:
    """Learn every layer class of this release now, so that nothing needs to be tried later inside a trace."""
    for name in _KNOWN:
        cls = probes.cache_class(name)
        if cls is not None:
            model_of(cls)
    for cls in _OWN:
        model_of(cls)


def _learn(cls: type) -> LayerModel:
    row = _OWN.get(cls)
    if row is None and cls is probes.cache_class(cls.__name__):
        row = _KNOWN.get(cls.__name__)
    if row is None:
        raise UnknownLayerError(
            f"{cls.__module__}.{cls.__qualname__} is a cache layer that kvconform does not know ({probes.release()}): "
            f"call kvconform.register_layer({cls.__name__}, code=...) once, before registering"
        )
    if row.code == "XS" and probes.cache_class("StaticSlidingWindowLayer") is None:
        row = _Row("X", row.config)
    fresh, ready = _examples(cls)
    told = {"keys", "values", "cumulative_length", row.config, *_DERIVED}
    constants = tuple((name, value) for name, value in ready.items() if name not in told)
    _MODELS[cls] = LayerModel(cls, row.code, row.config, fresh, ready, constants)
    _BY_CODE[row.code] = _MODELS[cls]
    return _MODELS[cls]


def model_by_code(letters: str) -> LayerModel:
    """The model whose code is `letters` on this release.

    Raises:
        UnknownLayerError: this release has no such class.
    """
    model = _BY_CODE.get(letters)
    if model is None:
        learn_layers()
        model = _BY_CODE.get(letters)
    if model is not None:
        return model
    names = ", ".join(name for name, row in _KNOWN.items() if row.code == letters) or "no class of transformers"
    raise UnknownLayerError(
        f"the context has a layer of code {letters} ({names}), which this release lacks ({probes.release()}): "
        "load it with a release that has the class, or call kvconform.register_layer first"
    )


def derived(name: str, state: dict[str, Any], reference: Any) -> Any:
    """The value of attribute `name` that follows from the tensors of the layer, or NotImplemented if it does not.

    Args:
        name: an attribute of a layer or cache.
        state: its other attributes (the keys and values among them).
        reference: the tensor that tells device and dtype.
    """
    function = _DERIVED.get(name)
    if function is None:
        return NotImplemented
    try:
        return function(state, reference)
    except (AttributeError, IndexError, KeyError, TypeError):
        # Leaves need not be tensors: tree_map puts shapes, dtypes or dynamic dimensions in their place.
        return None


def reference_of(state: dict[str, Any]) -> Any:
    """The tensor that tells the batch size, dtype and device of a layer or cache; None if there is none.

    It is the keys, or the first state of a convolution: one tensor, several by their index (since 5.17), or a list of
    one a layer in the caches of single models, whose layers without keys have an empty tensor in their place.
    """
    if state.get("keys") is not None:
        return state["keys"]
    for name in ("key_cache", "conv_states", "recurrent_states", "conv_cache"):
        found = state.get(name)
        if isinstance(found, (list, dict)):
            held = found.values() if isinstance(found, dict) else found
            found = next((one for one in held if not _is_empty(one)), None)
        if found is not None:
            return found
    return None


def _is_empty(held: Any) -> bool:
    """Whether this is what stands for a layer without keys: an empty list until 4.49, an empty tensor since."""
    return isinstance(held, list) or len(getattr(held, "shape", (0, 0))) == 1


def _batch_size(state: dict[str, Any], reference: Any) -> Any:
    # Until 4.50 MambaCache has the states of all layers in one tensor.
    shape = reference.shape
    stacked = reference is state.get("conv_states") and len(shape) == _SHAPE_DIMS
    return shape[1 if stacked else 0]


def is_derived(name: str) -> bool:
    """Whether an attribute of this name follows from tensors."""
    return name in _DERIVED


def grows(base: dict[str, Any]) -> bool:
    """Whether the length of such a layer's keys is the number of tokens it has seen (below its window)."""
    return "max_cache_len" not in base and "_quantized_keys" not in base


def length_of(keys: Any) -> Any:
    """Tokens in a tensor of keys, shape (batch, heads, tokens, head size); 0 for None and for the empty one."""
    shape: Any = getattr(keys, "shape", ())
    return shape[-2] if len(shape) == _SHAPE_DIMS else 0


_DERIVED: dict[str, Any] = {
    "dtype": lambda _, reference: reference.dtype,
    "_dtype": lambda _, reference: reference.dtype,
    "device": lambda _, reference: reference.device,
    "batch_size": _batch_size,
    "max_batch_size": _batch_size,
    "num_heads": lambda _, reference: reference.shape[1],
    "num_key_value_heads": lambda _, reference: reference.shape[1],
    "head_dim": lambda _, reference: reference.shape[-1],
    "k_head_dim": lambda state, _: state["keys"].shape[-1],
    "v_head_dim": lambda state, _: state["values"].shape[-1],
    "indexer_dtype": lambda state, _: state["indexer_keys"].dtype,
    "indexer_device": lambda state, _: state["indexer_keys"].device,
    "_sliding_window_tensor": lambda state, reference: _window_tensor(state["sliding_window"], reference),
}


FROM_CONFIG = frozenset({"_sliding_window_tensor"})
"""Attributes that follow from the code alone, before a layer has its first tensors too."""


def _window_tensor(window: int, reference: Any) -> torch.Tensor:
    """5.15 and later keep the window as a tensor too; it follows from the number, so that it is no leaf."""
    device = reference.device if isinstance(reference, torch.Tensor) else torch.device("cpu")
    mode = getattr(reference, "fake_mode", None)
    if mode is not None and device.type != "cpu":
        # A fake tensor may lie on a device that this machine does not have.
        with mode:
            return torch.empty((), dtype=torch.long, device=device)
    return _window_tensor_on(window, str(device))


@probes.constant
def _window_tensor_on(window: int, device: str) -> torch.Tensor:
    # Made outside of any tracing mode: it is a constant of the release, never a fake tensor or a node of a graph.
    with torch.utils._python_dispatch._disable_current_modes():
        return torch.tensor(window, dtype=torch.long, device=device)


def _examples(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """State of an example before and after its first tensors; empty where the class cannot be tried."""
    with torch.utils._python_dispatch._disable_current_modes():
        try:
            fresh = cls(**_tiny_arguments(cls))
            ready = cls(**_tiny_arguments(cls))
            _fill(ready)
        except Exception:  # noqa: BLE001 (each class has its own way of wanting a config or a package)
            # A layer whose package is missing (quanto, hqq) or with arguments of its own: every attribute gets a word.
            return {}, {}
    return _without_tensors(fresh), _without_tensors(ready)


def _without_tensors(layer: Any) -> dict[str, Any]:
    # They are the layer's own and never taken over; and copying them inside torch.export would be traced.
    return {name: None if isinstance(value, torch.Tensor) else value for name, value in vars(layer).items()}


def _tiny_arguments(cls: type) -> dict[str, Any]:
    """The tiny arguments that the constructor, or one it passes **kwargs on to, names."""
    names: set[str] = set()
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is None:
            continue
        parameters = inspect.signature(init).parameters.values()
        names |= {p.name for p in parameters}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return {name: value for name, value in _TINY.items() if name in names}


def _fill(layer: Any) -> None:
    one = torch.zeros(1, 1, 1, 1)
    if hasattr(layer, "lazy_initialization"):
        count = len(probes.parameters_of(layer.lazy_initialization))
        if "conv_states" not in probes.parameters_of(type(layer).lazy_initialization):
            layer.lazy_initialization(*(one,) * (2 if count != 1 else 1))
    elif getattr(layer, "keys", one) is None:
        layer.update(one, one)
