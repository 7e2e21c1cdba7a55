"""Masks of decoders that are one token too long when they are traced without a mask.

BART and the models made after it ask for no mask in eager mode: where none is given they make one of ones, as long as
the tokens so far. While something is traced, transformers 4.53 to 4.57 leave that out, and make the causal mask of no
mask with a length of its own, which is one more than there are keys. The product of attention then refuses it. Here
that mask is cut to the keys. T5 and its like cut theirs themselves, and nothing changes for them.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from kvconform.patches.of_models import in_loaded_modules, model_classes, source_of
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_MAKES, _ASKS = "_update_causal_mask", "is_torchdynamo_compiling"
_TOO_LONG = "past_seen_tokens + sequence_length + 1"


def _probe() -> Answer:
    if importlib.util.find_spec("transformers") is None:
        return not_applicable("transformers is not installed")
    source = source_of("bart")
    if source is None or _MAKES not in source or _ASKS not in source:
        return not_applicable("the decoders of this release make their masks in another way")
    if _TOO_LONG not in source:
        return not_needed("the masks of this release's decoders are as long as there are keys")
    return needed("a decoder of this release that is traced without a mask makes one that is longer than its keys")


def _cut_when_traced(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `_update_causal_mask`."""

    @functools.wraps(original)
    def update(
        self: Any, attention_mask: Any, input_tensor: Any, cache_position: Any, past_key_values: Any, *more: Any
    ) -> Any:
        found = original(self, attention_mask, input_tensor, cache_position, past_key_values, *more)
        if attention_mask is not None or not isinstance(found, torch.Tensor) or not is_traced(input_tensor):
            return found
        if getattr(past_key_values, "is_compileable", False):
            return found  # As long as the tensors that are preallocated.
        held = past_key_values.get_seq_length() if past_key_values is not None else 0
        return found[..., : held + input_tensor.shape[1]]

    return update


def _of_module(module: ModuleType) -> tuple[Replacement, ...]:
    """The functions of a module's classes that make such masks."""
    if not hasattr(module, _ASKS):
        return ()
    return tuple(Replacement(cls, _MAKES, _cut_when_traced) for cls in model_classes(module) if _MAKES in vars(cls))


PATCH = Patch(
    name="masks-too-long",
    replaces="_update_causal_mask of BART and the models made after it (4.53 to 4.57), when traced without a mask",
    why="the causal mask is one longer than the keys, so that a decoder without a mask does not export",
    page="docs/known-failures/masks-too-long.md",
    probe=_probe,
    replacements=lambda: in_loaded_modules(_of_module),
    of_module=_of_module,
)
