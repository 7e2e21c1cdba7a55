"""What patches repair in caches that no model is needed to ask: layers that are skipped, and a class that is made."""

from __future__ import annotations

from typing import Any

import torch

from kvconform import probes
from kvconform.checks import builders
from kvconform.checks.behave import append, states
from kvconform.checks.errors import expect
from kvconform.checks.needs import Need, cache_class, lookup

__all__ = ["MADE", "expect_made_of_any_length", "expect_skips_layers"]

MADE = (
    cache_class("SlidingWindowCache"),
    Need(lambda: not probes.has_layers(), "the caches of this release get their tensors with the first token"),
)
_WRITTEN = {1: (3, 1, 2), 4: (2, 1), 2: (1, 1)}


def expect_skips_layers() -> None:
    """Some layers of a DynamicCache are written, some tokens at a time, and the others never.

    The last of them comes when a later layer has been written already.
    """
    __tracebackhide__ = True
    cache = lookup("transformers.cache_utils:DynamicCache")()
    for layer, counts in _WRITTEN.items():
        expected, start = torch.zeros(2, 2, 0, 8), 0
        for count in counts:
            keys, values = states(2, 2, count, 8, seed=10 * layer + start)
            got, _ = append(cache, keys, values, layer, start)
            expected, start = torch.cat([expected, keys], dim=2), start + count
            where = f"DynamicCache, layer {layer}, {start} tokens"
            expect(torch.equal(got, expected), f"keys are of {_shape(got)}, expected what was written", where)
    for layer in range(max(_WRITTEN) + 1):
        length, written = int(cache.get_seq_length(layer)), sum(_WRITTEN.get(layer, ()))
        expect(length == written, f"get_seq_length is {length}, expected {written}", f"DynamicCache, layer {layer}")


def expect_made_of_any_length() -> None:
    """A SlidingWindowCache is made shorter than its window, as long as it, and longer."""
    __tracebackhide__ = True
    for maximum in (builders.WINDOW - 1, builders.WINDOW, builders.MAXIMUM):
        cache = builders.static(
            2, 1, torch.float32, "cpu", name="SlidingWindowCache", make=builders.sliding, maximum=maximum
        )
        places, expected = cache.key_cache[0].shape[2], min(maximum, builders.WINDOW)
        expect(places == expected, f"it has {places} places, expected {expected}", f"SlidingWindowCache of {maximum}")


def _shape(tensor: Any) -> str:
    return f"shape {tuple(tensor.shape)}"
