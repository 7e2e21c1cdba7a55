"""transformers' caches against the reference KV cache: the same tokens, one attention function, equal outputs.

transformers' caches return keys and say where they start (`get_mask_sizes`); a mask made from that, as models make it,
tells what each query attends to. The reference knows the positions of its cells and makes its own mask. What differs
between the two outputs is what a cache lost, kept too long, or misplaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from kvconform.checks.behave import append, crop, parameters, states
from kvconform.checks.builders import HEADS, MAXIMUM, WIDTH
from kvconform.checks.errors import expect, expect_equal
from kvconform.checks.rivals import Rival, Stream
from kvconform.kvcache import Cache, Causal, EncoderCache, WrapperCache, attend

Restore = Callable[[Any], Any]

TOLERANCE = 1e-5
"""Both sides compute the same sums in another order, in float32; one key too many or too few shows."""

QUERY_HEADS = 2 * HEADS
ENCODED = 6


def unchanged(cache: Any) -> Any:
    """The cache as it is."""
    return cache


def expect_same_stream(rival: Rival, stream: Stream, restore: Restore = unchanged) -> None:
    """Run a stream of tokens for two sequences through both caches; `restore` takes transformers' at each step."""
    theirs, ours, start = rival.build(2), references(rival, sequences=2), 0
    for count in stream.steps:
        theirs = restore(theirs)
        expect_same_step(theirs, ours, rival, (0, 1), start, count)
        start += count


def expect_same_after_crop(rival: Rival, keep: int, restore: Restore = unchanged) -> None:
    """Crop to `keep` of 7 tokens, remove the same from the reference, go on with others."""
    theirs, ours = rival.build(2), references(rival, sequences=2)
    expect_same_step(theirs, ours, rival, (0, 1), 0, 7)
    theirs = restore(theirs)
    crop(theirs, 7, 7 - keep)
    for sequence in (0, 1):
        for cache in ours:
            cache.remove(sequence, keep)
    for position in range(keep, keep + 3):
        expect_same_step(theirs, ours, rival, (0, 1), position, 1, seed=100)


def expect_same_after_reorder(rival: Rival, order: Sequence[int], restore: Restore = unchanged) -> None:
    """Reorder the batch as beam search does; the reference copies prefixes into fresh sequences."""
    size, length = len(order), 5
    theirs, ours = rival.build(size), references(rival, sequences=2 * size)
    expect_same_step(theirs, ours, rival, range(size), 0, length)
    theirs = restore(theirs)
    theirs.reorder_cache(torch.tensor(order))
    for cache in ours:
        for row, source in enumerate(order):
            cache.copy_prefix(source, size + row, length)
        for sequence in range(size):
            cache.remove(sequence, 0)
    for position in range(length, length + 3):
        expect_same_step(theirs, ours, rival, range(size, 2 * size), position, 1)


def expect_same_encoder_decoder(rival: Rival, stream: Stream, restore: Restore = unchanged) -> None:
    """One sequence through EncoderDecoderCache and through a wrapper of an encoder and a causal cache."""
    theirs, start = rival.build(1), 0
    ours = [WrapperCache(EncoderCache(), layer.reference()) for layer in rival.layers]
    _init(ours, sequences=1)
    for count in stream.steps:
        theirs = restore(theirs)
        for layer, cache in enumerate(ours):
            _same_cross_layer(theirs, cache, rival, layer, start, count)
        start += count


def expect_same_step(  # noqa: PLR0913, PLR0917
    theirs: Any, ours: Sequence[Cache], rival: Rival, sequences: Sequence[int], start: int, count: int, seed: int = 0
) -> None:
    """Append `count` tokens from position `start` on to every layer of both, and compare what attention makes of it."""
    batch = len(sequences)
    sizes = all_mask_sizes(theirs, rival, start, count)
    for layer, cache in enumerate(ours):
        keys, values = states(batch, HEADS, count, WIDTH, seed=seed + 10 * layer + start)
        queries, _ = states(batch, QUERY_HEADS, count, WIDTH, seed=seed + 10 * layer + start + 5)
        positions = torch.arange(start, start + count)
        expected = reference_outputs(cache, queries, keys, values, positions, sequences)
        offset, length = sizes[layer]
        all_keys, all_values = append(theirs, keys, values, layer, start)
        where = f"{rival.about}; layer {layer}, positions {start} to {start + count - 1}"
        length = all_keys.shape[-2] if length is None else length
        expect_equal("the number of keys returned, against get_mask_sizes,", all_keys.shape[-2], length, where)
        mask = rival.layers[layer].mask(positions, torch.arange(offset, offset + length))
        expect_same_outputs(outputs(queries, all_keys, all_values, mask), expected, where)


def expect_same_outputs(got: torch.Tensor, expected: torch.Tensor, where: str) -> None:
    """Outputs (batch, tokens, heads, width), equal but for rounding; a NaN is never equal."""
    __tracebackhide__ = True
    expect_equal("the shape of the outputs", tuple(got.shape), tuple(expected.shape), where)
    difference = float((got - expected).abs().max())
    expect(difference <= TOLERANCE, f"attention differs by {difference:.3g} from the reference, expected 0", where)


# -- the two sides -----------------------------------------------------------------------------------------------------


def references(rival: Rival, sequences: int) -> list[Causal]:
    """One reference cache for each layer, since layers may see different things."""
    made = [layer.reference() for layer in rival.layers]
    _init(made, sequences)
    return made


def _init(caches: Sequence[Cache], sequences: int) -> None:
    for cache in caches:
        cache.init(torch.float32, sequences, capacity=2 * MAXIMUM, max_batch=sequences * MAXIMUM)


def reference_outputs(  # noqa: PLR0913, PLR0917
    cache: Cache,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    positions: torch.Tensor,
    sequences: Sequence[int],
) -> torch.Tensor:
    """What the reference attends to: (batch, tokens, heads, width), for states (batch, heads, tokens, width)."""
    batch, _, count, _ = queries.shape
    cache.start_forward(positions.tolist() * batch, [sequence for sequence in sequences for _ in range(count)])
    cache.put(_flat(keys), _flat(values))
    attended: torch.Tensor = attend(_flat(queries), *cache.get())
    return attended.view(batch, count, QUERY_HEADS, WIDTH)


def outputs(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The same attention over what transformers' cache returned, sequence by sequence."""
    return torch.stack(
        [
            attend(query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), mask)
            for query, key, value in zip(queries, keys, values, strict=True)
        ]
    )


def all_mask_sizes(cache: Any, rival: Rival, start: int, count: int) -> list[tuple[int, int | None]]:
    """The sizes for each layer, asked as models ask: before any layer is written, once for each kind of layer.

    Some releases (4.54, 4.55) make layers only when they are written, and know the sizes of the first one alone.
    """
    first = [rival.layers.index(layer) for layer in rival.layers]
    asked = {layer: mask_sizes(cache, layer, start, count) for layer in dict.fromkeys(first)}
    return [asked[layer] for layer in first]


def mask_sizes(cache: Any, layer: int, start: int, count: int) -> tuple[int, int | None]:
    """Position of the first key that `update` will return, and how many (None, from 0 on, before that method)."""
    part = getattr(cache, "self_attention_cache", cache)
    if not hasattr(part, "get_mask_sizes"):
        return 0, None
    names = parameters(type(part).get_mask_sizes)
    asked = torch.arange(start, start + count) if "cache_position" in names else count
    length, offset = part.get_mask_sizes(asked, layer)
    return int(offset), int(length)


def _same_cross_layer(  # noqa: PLR0913, PLR0917
    theirs: Any, ours: WrapperCache, rival: Rival, layer: int, start: int, count: int
) -> None:
    keys, values = states(1, HEADS, count, WIDTH, seed=10 * layer + start)
    queries, _ = states(1, QUERY_HEADS, count, WIDTH, seed=10 * layer + start + 5)
    encoder: Any = ours.caches[0]
    ours.start_forward(range(start, start + count), [0] * count)
    if not encoder.encoder_cached:
        encoded = states(1, HEADS, ENCODED, WIDTH, seed=50 + layer)
        encoder.put(_flat(encoded[0]), _flat(encoded[1]))
        append(theirs.cross_attention_cache, *encoded, layer, 0)
        theirs.is_updated[layer] = True
    expect_equal("is_updated", theirs.is_updated.get(layer), True, f"{rival.about}; layer {layer}")
    where = f"{rival.about}; layer {layer}, positions {start} to {start + count - 1}"
    ours.set_layer_type(1)
    ours.put(_flat(keys), _flat(values))
    decoded = attend(_flat(queries), *ours.get())[None]
    all_keys, all_values = append(theirs.self_attention_cache, keys, values, layer, start)
    positions, key_positions = torch.arange(start, start + count), torch.arange(all_keys.shape[-2])
    mask = rival.layers[layer].mask(positions, key_positions)
    expect_same_outputs(outputs(queries, all_keys, all_values, mask), decoded, f"self attention of {where}")
    ours.set_layer_type(0)
    crossed = outputs(queries, *_stored(theirs.cross_attention_cache, layer), None)
    expect_same_outputs(crossed, attend(_flat(queries), *ours.get())[None], f"cross attention of {where}")


def _stored(cache: Any, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    if "layers" in cache.__dict__:
        return cache.layers[layer].keys, cache.layers[layer].values
    return cache.key_cache[layer], cache.value_cache[layer]


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """(batch, heads, tokens, width) to (batch * tokens, heads, width), sequence by sequence."""
    return tensor.transpose(1, 2).reshape(-1, tensor.shape[1], tensor.shape[3])
