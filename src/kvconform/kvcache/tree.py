"""Caches as pytree nodes: flatten, unflatten, register, save, load.

The children of a `Causal` are k0, v0, k1, v1, ... by layer, then the bookkeeping (positions, members), then the
forward pass (locations, history, mask, batch_positions, batch_sequences; empty without one). Those of an
`EncoderCache` are k0, v0, ... and its two positions; those of a `WrapperCache` are its caches. The
context is plain data, and depends on the structure alone: never on a length, a position or the layer chosen with
`set_layer` (a rebuilt cache is at layer 0).

A shift function is no data. It travels beside the context, outside equality and JSON: a cache rebuilt from a file has
none until its attribute `shift` is set, and says so when it needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from kvconform import pytree
from kvconform.kvcache.base import Cache
from kvconform.kvcache.causal import Causal
from kvconform.kvcache.cells import Cells
from kvconform.kvcache.config import CacheConfig, Limits, dtype_name, dtype_of
from kvconform.kvcache.encoder import EncoderCache
from kvconform.kvcache.forward import Forward
from kvconform.kvcache.storage import Layer, Shift, Storage
from kvconform.kvcache.visibility import Visibility
from kvconform.kvcache.wrapper import WrapperCache
from kvconform.reusable import reusable

SCHEMA = 1


class Context(dict[str, Any]):
    """A context that carries a shift function without being compared by it or written with it."""

    shift: Shift | None = None


# -- Causal ------------------------------------------------------------------------------------------------------------


def flatten_causal(cache: Causal) -> tuple[list[Any], Context]:
    """Leaves and context of a causal cache; the leaves are its very tensors."""
    named, context = _named_causal(cache)
    return [tensor for _, tensor in named], context


def flatten_with_keys_causal(cache: Causal) -> tuple[list[tuple[Any, Any]], Context]:
    """The same with key paths."""
    named, context = _named_causal(cache)
    return _keyed(named), context


def unflatten_causal(leaves: Iterable[Any], context: dict[str, Any]) -> Causal:
    """A causal cache around `leaves`, which are not read."""
    cache = Causal(getattr(context, "shift", None), Visibility(context["window"], context["chunk"]))
    cache.config = CacheConfig.from_json(context["config"])
    if context["limits"] is None:
        return cache
    cache.limits = Limits(**context["limits"])
    taken = list(leaves)
    layers = _layers(taken, context["layers"])
    positions, members, locations, history, mask, batch_positions, batch_sequences = taken[2 * len(layers) :]
    cache._cells = Cells(positions, members)
    cache._forward = Forward(locations, history, mask, batch_positions, batch_sequences, reserve=context["reserve"])
    dtype = next(iter(layers.values())).keys.dtype if layers else dtype_of(context["dtype"])
    cache._storage = Storage(dtype, context["cells"], locations.device, cache.config.permuted_values, layers)
    cache._masks = cache._new_masks(context["cells"])
    return cache


def _named_causal(cache: Causal) -> tuple[list[tuple[str, Any]], Context]:
    context = Context(
        schema=SCHEMA,
        window=cache.rule.window,
        chunk=cache.rule.chunk,
        config=cache.config.to_json(),
        limits=None,
    )
    context.shift = cache.shift
    if cache.limits is None:
        return [], context
    storage, cells, forward = cache._storage, cache._cells, cache._forward.with_own_mask()
    context.update(
        limits=cache.limits.to_json(),
        dtype=dtype_name(storage.dtype),
        cells=storage.cells,
        layers=sorted(storage.layers),
        reserve=forward.reserve,
    )
    return [
        *_named_layers(storage.layers),
        ("positions", cells.positions),
        ("members", cells.members),
        ("locations", forward.locations),
        ("history", forward.history),
        ("mask", forward.mask),
        ("batch_positions", forward.positions),
        ("batch_sequences", forward.sequences),
    ], context


def dynamic_shapes(cache: Causal, batch: Any, history: Any) -> list[dict[int, Any]]:
    """Shapes for `torch.export`, one a leaf: the batch and the history are dynamic, the rest is not.

    Args:
        cache: with a forward pass whose mask is not padded, or padded as every later one will be.
        batch: a `Dim` for the tokens of a batch, the same as that of the model's own inputs.
        history: a `Dim` for the cells that a batch sees.
    """
    dynamic = {
        "locations": {0: batch},
        "history": {0: history},
        "mask": {0: batch, 1: history},
        "batch_positions": {0: batch},
        "batch_sequences": {0: batch},
    }
    if cache.config.mask_batch_padding != 1:
        # A padded number of rows is no multiple of the batch: it gets a dimension of its own.
        dynamic["mask"] = {0: torch.export.Dim("mask_rows"), 1: history}
    return [dynamic.get(name, {}) for name, _ in _named_causal(cache)[0]]


# -- EncoderCache ------------------------------------------------------------------------------------------------------


def flatten_encoder(cache: EncoderCache) -> tuple[list[Any], Context]:
    """Leaves and context of an encoder cache."""
    named, context = _named_encoder(cache)
    return [child for _, child in named], context


def flatten_with_keys_encoder(cache: EncoderCache) -> tuple[list[tuple[Any, Any]], Context]:
    """The same with key paths."""
    named, context = _named_encoder(cache)
    return _keyed(named), context


def unflatten_encoder(leaves: Iterable[Any], context: dict[str, Any]) -> EncoderCache:
    """An encoder cache around `leaves`."""
    cache = EncoderCache()
    cache.config = CacheConfig.from_json(context["config"])
    if context["limits"] is None:
        return cache
    taken = list(leaves)
    cache.limits = Limits(**context["limits"])
    cache.layers = _layers(taken, context["layers"])
    cache.encoder_cached, cache._started, cache._reserve = context["cached"], context["started"], context["reserve"]
    cache.encoder_position, cache._position = taken[2 * len(cache.layers) :]
    cache.dtype = taken[0].dtype if cache.layers else dtype_of(context["dtype"])
    cache.device = taken[0].device if cache.layers else torch.device(context["device"])
    return cache


def _named_encoder(cache: EncoderCache) -> tuple[list[tuple[str, Any]], Context]:
    context = Context(schema=SCHEMA, config=cache.config.to_json(), limits=None)
    if cache.limits is None:
        return [], context
    context.update(
        limits=cache.limits.to_json(),
        dtype=dtype_name(cache.dtype),
        device=str(cache.device),
        layers=sorted(cache.layers),
        cached=cache.encoder_cached,
        started=cache._started,
        reserve=cache._reserve,
    )
    positions = [("encoder_position", cache.encoder_position), ("position", cache._position)]
    return [*_named_layers(cache.layers), *positions], context


# -- WrapperCache ------------------------------------------------------------------------------------------------------


def flatten_wrapper(cache: WrapperCache) -> tuple[list[Any], Context]:
    """The caches, as children."""
    return list(cache.caches), Context(schema=SCHEMA)


def flatten_with_keys_wrapper(cache: WrapperCache) -> tuple[list[tuple[Any, Any]], Context]:
    """The same with key paths."""
    return _keyed([(f"cache{index}", child) for index, child in enumerate(cache.caches)]), Context(schema=SCHEMA)


def unflatten_wrapper(children: Iterable[Any], context: dict[str, Any]) -> WrapperCache:
    """A wrapper of `children`."""
    del context
    return WrapperCache(*children)


# -- registration ------------------------------------------------------------------------------------------------------

NODES = (
    pytree.Node(
        Causal,
        flatten_causal,
        unflatten_causal,
        flatten_with_keys_causal,
        "kvconform.kvcache.Causal",
    ),
    pytree.Node(
        EncoderCache,
        flatten_encoder,
        unflatten_encoder,
        flatten_with_keys_encoder,
        "kvconform.kvcache.EncoderCache",
    ),
    pytree.Node(
        WrapperCache,
        flatten_wrapper,
        unflatten_wrapper,
        flatten_with_keys_wrapper,
        "kvconform.kvcache.WrapperCache",
    ),
)
"""How the three caches become leaves and back."""


@reusable
def register() -> Iterator[None]:
    """Make the caches of this package pytree nodes; on leaving, all tables are what they were."""
    before = [pytree.current(node.cls) for node in NODES]
    try:
        for node in NODES:
            pytree.put(node)
        yield
    finally:
        for registration in before:
            pytree.put(registration)


# -- files -------------------------------------------------------------------------------------------------------------


def save(cache: Cache, path: str | Path) -> None:
    """Write a cache to a file that `torch.load` reads with weights_only=True: tensors and plain data."""
    torch.save(_state(cache), path)


def load(path: str | Path, shift: Shift | None = None, device: torch.device | str = "cpu") -> Any:
    """Read what `save` wrote.

    Args:
        path: the file.
        shift: given to every causal cache in it; functions are not saved.
        device: where keys, values and masks go.
    """
    cache = _from_state(torch.load(path, map_location="cpu", weights_only=True), shift)
    return cache.to(device) if torch.device(device).type != "cpu" else cache


def _state(cache: Cache) -> dict[str, Any]:
    node = next((node for node in NODES if node.cls is type(cache)), None)
    if node is None:
        raise TypeError(f"{type(cache).__name__} is no cache of kvconform.kvcache: save its parts yourself")
    children, context = node.flatten(cache)
    # Clones: a mask is a view of a buffer much larger than itself, and a view is saved with all of its storage.
    saved = [_state(c) if isinstance(c, Cache) else c.clone() if isinstance(c, torch.Tensor) else c for c in children]
    return {"class": node.serialized_type_name, "context": dict(context), "children": saved}


def _from_state(state: dict[str, Any], shift: Shift | None) -> Any:
    node = next(node for node in NODES if node.serialized_type_name == state["class"])
    context = Context(state["context"])
    context.shift = shift
    return node.unflatten([_from_state(c, shift) if isinstance(c, dict) else c for c in state["children"]], context)


def _named_layers(layers: dict[int, Layer]) -> list[tuple[str, Any]]:
    return [
        pair
        for index in sorted(layers)
        for pair in ((f"k{index}", layers[index].keys), (f"v{index}", layers[index].values))
    ]


def _layers(leaves: list[Any], indices: list[int]) -> dict[int, Layer]:
    return {index: Layer(leaves[2 * at], leaves[2 * at + 1]) for at, index in enumerate(indices)}


def _keyed(named: list[tuple[str, Any]]) -> list[tuple[Any, Any]]:
    return pytree.keyed([name for name, _ in named], [child for _, child in named])
