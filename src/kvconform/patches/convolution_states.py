"""Caches that keep the last inputs of a convolution, and prompts shorter than it is wide, while they are traced.

A state-space model or a linear attention keeps as many inputs as its convolution is wide. Since transformers 5.14 its
cache pads a shorter prompt with zeros, and asks the length of the prompt whether it must
(`LinearAttentionLayer.update_conv_state`). So a program takes the prompts on one side of that width: none shorter if
the example is as long, none as long if the example is shorter. Here zeros stand before the inputs always, and the last
`width` of all are kept, which are the same numbers. The model takes as many outputs of its convolution as it gave
inputs, so that zeros before them change none, and gets its inputs back without them.

Dynamo (a strict export, torch.compile) traces the cache as it is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from kvconform import probes
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_LAYER, _UPDATE, _WIDTH = "LinearAttentionLayer", "update_conv_state", "conv_kernel_size"


def _layer() -> Any:
    """The layer class that compares, where the release has one; others inherit its method."""
    layer: Any = probes.cache_class(_LAYER)
    update = None if layer is None else vars(layer).get(_UPDATE)
    return layer if update is not None and _WIDTH in inspect.signature(update).parameters else None


def _probe() -> Answer:
    if _layer() is None:
        return not_applicable("no cache of this release compares a prompt with the width of a convolution")
    return needed("a cache of this release asks the length of a prompt whether it is shorter than a convolution")


def _padding_always(native: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(native)
    def update_conv_state(
        self: Any, conv_states: torch.Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **named: Any
    ) -> Any:
        known = self.conv_kernel_size[state_idx] if self.is_conv_states_initialized[state_idx] else conv_kernel_size
        length: Any = conv_states.shape[-1]
        if (
            torch.compiler.is_dynamo_compiling()
            or not is_traced(conv_states)
            or not isinstance(length, torch.SymInt)
            or not isinstance(known, int)
            or self.record_past
            or self.has_previous_state[state_idx]
        ):
            return native(self, conv_states, state_idx=state_idx, conv_kernel_size=conv_kernel_size, **named)
        if not self.is_conv_states_initialized[state_idx]:
            self.lazy_initialization(conv_states=conv_states, state_idx=state_idx, conv_kernel_size=conv_kernel_size)
        self.has_previous_state[state_idx] = True
        self.conv_states[state_idx].copy_(torch.nn.functional.pad(conv_states, (known, 0))[..., -known:])
        return conv_states

    return update_conv_state


PATCH = Patch(
    name="convolution-states",
    replaces="LinearAttentionLayer.update_conv_state (transformers 5.14 and later), when traced",
    why="a program exported with a prompt at least as long as a convolution is wide refuses a shorter one",
    page="docs/known-failures/short-prompts.md",
    probe=_probe,
    replacements=lambda: (Replacement(_layer(), _UPDATE, _padding_always),),
)
