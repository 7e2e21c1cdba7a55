"""Asks a cache everything it can be asked, whatever the release calls it, and does to it everything that can be done.

Signatures changed often (`crop` took a length before 5.15 and a count to remove since; `get_mask_sizes` takes
positions before 5.4, a
query length since; `update` took `cache_kwargs` before 5.4): they are read, never inferred from a version.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from kvconform.checks.observe import observe

NEW_TOKENS = 4
_CROPPED = 2
_PROPERTIES = (
    "is_compileable",
    "is_initialized",
    "is_sliding",
    "is_linear",
    "is_croppable",
    "max_batch_size",
    "max_cache_len",
    "batch_size",
    "seen_tokens",
)


def states(
    batch: int, heads: int, tokens: int, width: int, *, seed: int = 0, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of shape `(batch, heads, tokens, width)`, the same for the same seed."""
    generator = torch.Generator().manual_seed(1000 + seed)
    keys = torch.randn(batch, heads, tokens, width, generator=generator)
    values = torch.randn(batch, heads, tokens, width, generator=generator)
    return keys.to(**options) if options else keys, values.to(**options) if options else values


@functools.cache
def parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The parameter names of a method. It is asked for each state that is written, so each method is read once."""
    return tuple(inspect.signature(function).parameters)


def takes_cache_kwargs(cache: Any) -> bool:
    """Whether `update` still takes the positions of the new tokens in `cache_kwargs` (before 5.4)."""
    return "cache_kwargs" in parameters(type(cache).update)


def crops_by_count(cache: Any) -> bool:
    """Whether `crop` takes a negative count of tokens to remove (since 5.15) instead of the length to keep."""
    return "tokens_to_remove" in parameters(type(cache).crop)


def append(cache: Any, keys: torch.Tensor, values: torch.Tensor, layer: int, start: int) -> Any:
    """Call `update` as this release's models do, with the new tokens at positions from `start`."""
    if not takes_cache_kwargs(cache):
        return cache.update(keys, values, layer)
    positions = torch.arange(start, start + keys.shape[-2], device=keys.device)
    extra: dict[str, Any] = {"cache_position": positions}
    window = _window(cache, layer)
    if window:
        extra["sliding_window"] = window
    return cache.update(keys, values, layer, extra)


def _window(cache: Any, layer: int) -> int | None:
    """The window that a model on the list path passes with a sliding layer's states: that layer's length."""
    sliding = cache.__dict__.get("is_sliding")
    if sliding is None or not bool(sliding[layer]):
        return None
    # HybridChunkedCache of 4.51 to 4.53 makes a layer's tensors at its first update.
    held = cache.key_cache[layer : layer + 1]
    return int(held[0].shape[2]) if held else int(cache.sliding_window)


def crop(cache: Any, length: int, remove: int) -> Any:
    """Remove the last `remove` of `length` tokens."""
    return cache.crop(-remove) if crops_by_count(cache) else cache.crop(length - remove)


def layer_count(cache: Any) -> int:
    """The number of layers, of the self-attention part where there are two parts."""
    return len(getattr(cache, "self_attention_cache", cache).__dict__.get("layers", ())) or _list_length(cache)


def _list_length(cache: Any) -> int:
    part = getattr(cache, "self_attention_cache", cache)
    keys = part.__dict__.get("key_cache")
    if keys is None and "_modules" in part.__dict__:
        keys = getattr(part, "key_cache", None)
    return len(keys) if keys is not None else 0


def answers(cache: Any) -> dict[str, Any]:
    """Every answer of a cache, by question, each of the changing questions asked of a fresh copy.

    What raises is an answer too: `raises TypeError`. Tensors are answered as tensors.
    """
    found: dict[str, Any] = {"class": type(cache).__qualname__}
    layers = layer_count(cache)
    _ask(found, "len", lambda: len(cache))
    for layer in range(layers + 1):
        _ask(found, f"get_seq_length({layer})", lambda layer=layer: _plain(cache.get_seq_length(layer)))  # type: ignore[misc]
        _ask(found, f"get_mask_sizes(1, {layer})", lambda layer=layer: mask_sizes(cache, 1, layer))  # type: ignore[misc]
        _ask(found, f"get_mask_sizes(4, {layer})", lambda layer=layer: mask_sizes(cache, 4, layer))  # type: ignore[misc]
    for name in ("get_max_cache_shape", "get_max_length"):
        if hasattr(cache, name):
            _ask(found, f"{name}()", lambda name=name: getattr(cache, name)())  # type: ignore[misc]
    for name in _PROPERTIES:
        if hasattr(type(cache), name) or name in cache.__dict__:
            _ask(found, name, lambda name=name: getattr(cache, name))  # type: ignore[misc]
    for name, change in operations(cache).items():
        _ask_changed(found, name, cache, change)
    return found


def mask_sizes(cache: Any, tokens: int, layer: int) -> Any:
    """`get_mask_sizes` for `tokens` new tokens, by whichever argument this release takes."""
    if "cache_position" not in parameters(type(cache).get_mask_sizes):
        return _plain(cache.get_mask_sizes(tokens, layer))
    start = int(cache.get_seq_length(layer))
    return _plain(cache.get_mask_sizes(torch.arange(start, start + tokens), layer))


def operations(cache: Any) -> dict[str, Callable[[Any], Any]]:
    """Everything that can be done to such a cache, by name: each is given a copy of it, or the cache itself."""
    layers = layer_count(cache)
    keys = first_tensor(cache)
    batch, heads, width = (keys.shape[0], keys.shape[1], keys.shape[-1]) if keys is not None else (2, 2, 8)
    options = {"dtype": keys.dtype, "device": keys.device} if keys is not None else {}

    def grow(tokens: int, which: range) -> Callable[[Any], Any]:
        def change(copied: Any) -> Any:
            results: dict[str, Any] = {}
            for layer in which:
                _ask(results, f"[{layer}]", partial(extend, copied, layer, tokens, (batch, heads, width), options))
            return results

        return change

    length = _length(cache) if layers else 0
    every = range(max(layers, 1))
    beams = torch.arange(batch - 1, -1, -1, device=str(options.get("device", "cpu")))
    changes = {
        "update with 1 token": grow(1, every),
        f"update with {NEW_TOKENS} tokens": grow(NEW_TOKENS, every),
        "reorder_cache": lambda copied: copied.reorder_cache(beams),
        f"crop of {_CROPPED} tokens": lambda copied: crop(copied, length, _CROPPED),
        "batch_repeat_interleave(2)": lambda copied: copied.batch_repeat_interleave(2),
        "batch_select_indices([0])": lambda copied: copied.batch_select_indices(torch.tensor([0])),
        "reset": lambda copied: copied.reset(),
    }
    return {name: change for name, change in changes.items() if "(" in name or hasattr(cache, name.split()[0])}


def changed_copies(cache: Any) -> Iterator[tuple[str, Any]]:
    """Copies of a cache, each after one operation, with its name; those that the release refuses are left out.

    Nothing is cropped where there is less: a count of tokens is negative then on some releases.
    """
    short = layer_count(cache) == 0 or _length(cache) <= _CROPPED
    for name, change in operations(cache).items():
        if short and name.startswith("crop"):
            continue
        copied = copy.deepcopy(cache)
        try:
            change(copied)
        except Exception:  # noqa: BLE001, S112 - what a release cannot do to this cache, and says so
            continue
        yield name, copied


def _length(cache: Any) -> int:
    """The number of tokens; 0 where a release has no answer."""
    try:
        # HybridCache of 4.44 answers None.
        return int(cache.get_seq_length() or 0)
    except ValueError:
        # From 5.4 a cache of linear attention alone refuses.
        return 0


def extend(cache: Any, layer: int, tokens: int, sizes: tuple[int, int, int], options: dict[str, Any]) -> Any:
    """Append new tokens to one layer (of the self-attention part where there are two), linear states included."""
    part = getattr(cache, "self_attention_cache", cache)
    batch, heads, width = sizes
    keys, values = states(batch, heads, tokens, width, seed=50 + layer, **options)
    known = layer < layer_count(cache)
    linear = [_extend_linear(part, layer, name) for name in ("conv", "recurrent")] if known else []
    if any(state is not None for state in linear) and not hasattr(part.layers[layer], "keys"):
        return linear
    return linear, append(part, keys, values, layer, int(part.get_seq_length(layer)) if known else 0)


def _extend_linear(cache: Any, layer: int, name: str) -> Any:
    """Write a linear-attention state one larger than the one there is; `None` where the layer has none."""
    held = getattr(cache.__dict__.get("layers", [None] * (layer + 1))[layer], f"{name}_states", None)
    # One tensor before 5.14, a list or mapping of them since.
    state = (
        next(iter(held.values() if isinstance(held, dict) else held), None) if isinstance(held, (dict, list)) else held
    )
    if not isinstance(state, torch.Tensor):
        return None
    return getattr(cache, f"update_{name}_state")(state + 1, layer)


def first_tensor(cache: Any) -> torch.Tensor | None:
    """The first tensor of a cache with the four dimensions of keys and values."""
    return next((atom for atom in observe(cache).values() if isinstance(atom, torch.Tensor) and atom.dim() == 4), None)  # noqa: PLR2004


def _plain(value: Any) -> Any:
    """Counters that are zero-dimensional tensors on some releases, as numbers."""
    if isinstance(value, torch.Tensor) and value.dim() == 0:
        return value.item()
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(item) for item in value)
    return value


def _ask(found: dict[str, Any], question: str, ask: Callable[[], Any]) -> None:
    try:
        answer = ask()
    except Exception as error:  # noqa: BLE001 - whatever the original raises, the other must raise too
        answer = f"raises {type(error).__name__}"
    for path, atom in observe(answer).items():
        found[f"{question}{path}"] = atom


def _ask_changed(found: dict[str, Any], name: str, cache: Any, change: Callable[[Any], Any]) -> None:
    """Do something to a copy; keep what it returned, and everything that the copy then is and answers."""
    copied = copy.deepcopy(cache)
    _ask(found, f"{name} returns ", lambda: change(copied))
    for layer in range(layer_count(copied)):
        _ask(found, f"after {name}: get_seq_length({layer})", lambda layer=layer: _plain(copied.get_seq_length(layer)))  # type: ignore[misc]
        _ask(found, f"after {name}: get_mask_sizes(1, {layer})", lambda layer=layer: mask_sizes(copied, 1, layer))  # type: ignore[misc]
    found.update({f"after {name}: {path}": atom for path, atom in observe(copied).items()})


def answers_of_a_new_layer(cache: Any) -> dict[str, Any]:
    """What a copy answers when one layer more is written than it has."""
    found: dict[str, Any] = {}
    layers, keys = layer_count(cache), first_tensor(cache)
    sizes = (keys.shape[0], keys.shape[1], keys.shape[-1]) if keys is not None else (2, 2, 8)
    options = {"dtype": keys.dtype, "device": keys.device} if keys is not None else {}
    _ask_changed(found, "update of one layer more", cache, lambda copied: extend(copied, layers, 2, sizes, options))
    return found
