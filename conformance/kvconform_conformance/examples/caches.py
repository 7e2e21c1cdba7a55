"""The example caches and inputs that export checks share."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from kvconform.checks.builders import HEADS, WIDTH, config, configured, static
from kvconform.checks.caches import Example, examples
from kvconform.checks.needs import cache_class

LONG_WINDOW = 16


def _with_long_window(name: str, about: str, length: int, types: list[str] | None = None) -> Example:
    """A dynamic sliding cache with a window that several lengths fit below."""

    def build(batch: int, length: int, dtype: torch.dtype, device: str) -> Any:
        layers = len(types) if types else 2
        return configured(
            batch, length, dtype, device, make=lambda: config(layers, window=LONG_WINDOW, types=types), layers=layers
        )

    # Below its window a layer keeps at most one token less than the window, and a program that was exported there is
    # good for strictly fewer than that, the token that the step appends included.
    longest = LONG_WINDOW - 3 if length < LONG_WINDOW else 1024
    return Example(name, about, build, length, (cache_class("DynamicSlidingWindowLayer"),), longest=longest)


SLIDING = (
    _with_long_window("sliding-16-below", "sliding window 16, after 5 tokens", 5),
    _with_long_window("sliding-16-past", "sliding window 16, after 20 tokens", 20),
    _with_long_window(
        "mixed-16-below", "full and sliding, window 16, after 5 tokens", 5, ["full_attention", "sliding_attention"]
    ),
    _with_long_window(
        "mixed-16-past", "full and sliding, window 16, after 20 tokens", 20, ["full_attention", "sliding_attention"]
    ),
)
_STATIC = Example("static-32", "StaticCache of 32, after 5 tokens", partial(static, maximum=32), 5, grows=False)
EXPORTED = (
    *examples("dynamic-two-layers", "static-below", "static-sliding-past", "encoder-decoder", "encoder-decoder-static"),
    *SLIDING,
)
DYNAMIC = (*examples("dynamic-two-layers", "encoder-decoder"), _STATIC, *SLIDING)


def step_inputs(cache: Any, batch: int = 2, tokens: int = 1) -> tuple[Any, Any, torch.Tensor]:
    """`(x, cache, position)` for a decode step: new states and the indices they go to."""
    start = int(cache.get_seq_length())
    return step_states(batch, tokens, 0), cache, torch.arange(start, start + tokens)


def step_states(batch: int, tokens: int, step: int) -> torch.Tensor:
    """The new states of a step, of shape `(batch, heads, tokens, width)`."""
    generator = torch.Generator().manual_seed(500 + step)
    return torch.randn(batch, HEADS, tokens, WIDTH, generator=generator)


def by_name(name: str) -> Example:
    """One of the exported examples."""
    return next(example for example in (*EXPORTED, *DYNAMIC) if example.name == name)
