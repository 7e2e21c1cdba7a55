"""Where an attribute of a layer or cache comes from if its context does not mention it: decided here, once.

| origin | rebuilding takes it from |
|---|---|
| `LEAF` | its leaf: keys, values and counters that no shape tells are never left out of a context |
| `DEFAULT` | what a new layer or cache has |
| `TENSORS` | dtype, device and shape of the tensors |
| `CODE` | the number of the layer's code |
| `PARTS` | the layers of a cache, or the caches in it |
| `ABSENT` | nothing: a new one lacks it, and so does this one |

`origin_of` answers for the attributes of a layer, `origin_in_cache` for those of a cache. Flattening asks them and
leaves an attribute out if it has the value that its origin gives. Any other value it writes: as a leaf, as a fact, as
`#name` (a new one lacks the attribute and its value follows from the tensors) or as `#-name` (this one lacks it).
Rebuilding asks the same two functions about every attribute that the context does not mention.

A cache of two lists (`kvconform.lists`) decides for itself: its context leaves out no defaults, since most of these
classes cannot be tried without a config, so that only `LEAF`, `TENSORS` and `PARTS` would be of use there.
"""

from __future__ import annotations

import enum
from collections.abc import Container
from typing import Any

import torch

from kvconform import probes
from kvconform.attributes import same
from kvconform.learned import CacheModel, LayerModel

__all__ = [
    "COUNTERS",
    "Origin",
    "count_of",
    "derived",
    "grows",
    "is_as_expected",
    "is_derived",
    "length_of",
    "origin_in_cache",
    "origin_of",
    "reference_of",
    "tells_itself",
]


class Origin(enum.Enum):
    """Where an attribute comes from. The table above says what each means."""

    LEAF = "leaf"
    DEFAULT = "default"
    TENSORS = "tensors"
    CODE = "code"
    PARTS = "parts"
    ABSENT = "absent"


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
"""Attributes that count tokens. They follow from shapes or are leaves, never facts: a spec never tells a length."""

FROM_CODE = frozenset({"_sliding_window_tensor"})
"""Attributes that follow from the number in the code alone, also before a layer has its first tensors."""

TENSORS_OF_A_LAYER = ("keys", "values")

_SHAPE_DIMS = 4


def origin_of(name: str, model: LayerModel, *, ready: bool, filled: bool) -> Origin:
    """Where an attribute of a layer comes from that the context does not mention.

    Args:
        name: the attribute.
        model: what is known of the layer's class.
        ready: whether the layer has keys and values.
        filled: whether it has tensors. A layer of linear attention alone has, and is never `ready`.
    """
    base = model.ready if ready else model.fresh
    if name == model.config or (name in FROM_CODE and name in base):
        return Origin.CODE
    if ready and name in TENSORS_OF_A_LAYER:
        return Origin.LEAF
    if name not in base:
        return Origin.ABSENT
    if name in COUNTERS:
        return _origin_of_counter(base, ready=ready)
    return Origin.TENSORS if filled and is_derived(name) else Origin.DEFAULT


def origin_in_cache(name: str, model: CacheModel, parts: Container[str]) -> Origin:
    """Where an attribute of a cache that is a list of layers comes from that the context does not mention.

    Args:
        name: the attribute.
        model: what is known of the cache's class.
        parts: the attributes that follow from the layers of the cache, or from the caches in it.
    """
    if name in COUNTERS:
        # At 0 too: a step later it is not 0, and the structure must be the same.
        return Origin.LEAF
    if name in parts:
        return Origin.PARTS
    return Origin.DEFAULT if name in model.defaults else Origin.ABSENT


def _origin_of_counter(base: dict[str, Any], *, ready: bool) -> Origin:
    """Where a counter comes from that the context does not mention: the one place that decides on counters.

    In a layer that grows it is the length of the keys, which holds below a window and no longer past it. In an
    allocated layer (static, quantized) no shape tells it: it is a leaf as soon as the layer has tensors.
    """
    if not ready:
        return Origin.DEFAULT
    return Origin.TENSORS if grows(base) else Origin.LEAF


def is_as_expected(origin: Origin, name: str, state: dict[str, Any], base: dict[str, Any]) -> bool:
    """Whether an attribute has the value that its origin gives, so that the context need not mention it.

    Args:
        origin: what `origin_of` says of it.
        name: the attribute.
        state: the attributes of the layer.
        base: those of an example of its class.
    """
    value = state[name]
    if name in COUNTERS:
        return _is_expected_count(origin, value, state, base.get(name))
    if origin is Origin.DEFAULT:
        return not isinstance(value, torch.Tensor) and same(base[name], value)
    if origin is Origin.TENSORS or origin is Origin.CODE:
        expected = derived(name, state, reference_of(state))
        # None: the keys are no tensor, so that nothing contradicts the value.
        return expected is None or same(expected, value) or _same_constant(expected, value)
    return False


def _is_expected_count(origin: Origin, value: Any, state: dict[str, Any], default: Any) -> bool:
    if origin is Origin.TENSORS and count_of(state.get("keys")) is None:
        # A number beside keys that are none was put there, as 0 is by `tree_map(lambda _: 0, cache)`: it is a leaf.
        return value is None
    if isinstance(value, torch.Tensor) or not isinstance(value, (int, torch.SymInt)):
        # torch.export wraps int leaves in a type of its own while it looks at dynamic shapes.
        return False
    if origin is Origin.TENSORS:
        return probes.statically_equal(value, length_of(state.get("keys")))
    return origin is Origin.DEFAULT and same(default, value)


def tells_itself(name: str, value: Any, state: dict[str, Any]) -> bool:
    """Whether an attribute that a new layer or cache lacks has the value that follows from the tensors.

    It may be a user's own attribute of the same name. Without tensors nothing follows, and another value is written.
    """
    reference = reference_of(state)
    return reference is not None and is_derived(name) and same(derived(name, state, reference), value)


def _same_constant(expected: Any, value: Any) -> bool:
    """Whether a number kept as a tensor is the expected one.

    Only dimensions and device are compared. Comparing the values would make torch.export guard on the tensor.
    """
    if not isinstance(expected, torch.Tensor) or not isinstance(value, torch.Tensor):
        return False
    return expected.dim() == value.dim() == 0 and expected.device == value.device


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


def count_of(keys: Any) -> Any:
    """The tokens that a growing layer with these keys has counted; None where something else stands in their place."""
    return length_of(keys) if hasattr(keys, "shape") else None


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
