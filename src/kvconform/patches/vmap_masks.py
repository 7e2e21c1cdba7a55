"""Attention masks by broadcasting where transformers makes them with `torch.vmap`.

transformers 4.53 to 4.57 make a mask of four dimensions by calling a function of four numbers under four times vmap,
inside a mode that turns indexing into an autograd function. torch.export follows neither with a padding mask, and on
torch 2.5 to 2.8 not without one. The same function of four index tensors gives the same mask by broadcasting, which is
what transformers itself does from 5.0 on.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_VMAP, _MODE = "_vmap_for_bhqkv", "TransformGetItemToIndex"


def _module() -> ModuleType | None:
    try:
        return importlib.import_module("transformers.masking_utils")
    except ModuleNotFoundError:
        return None


def _probe() -> Answer:
    module = _module()
    if module is None:
        return not_applicable("this release has no transformers.masking_utils")
    if not hasattr(module, _VMAP):
        return not_needed("this release makes its masks by broadcasting")
    if not _sees_batched(getattr(module, _VMAP)):
        return not_needed("the masks of this release are not made with vmap")
    return needed("this release makes its masks with vmap, which torch.export does not follow")


def _sees_batched(expand: Callable[..., Any]) -> bool:
    """Whether the mask function is called under vmap: its numbers are then batched tensors."""
    seen: list[bool] = []

    def mask_function(batch: Any, head: Any, query: Any, key: Any) -> Any:  # noqa: ARG001 (a mask function)
        seen.append(torch._C._functorch.is_batchedtensor(key))
        return key <= query

    indices = torch.arange(1)
    expand(mask_function)(indices, indices, indices, indices)
    return any(seen)


def _broadcasting(vmapped: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `_vmap_for_bhqkv`: the same where nothing is traced, broadcasting where something is."""

    def expand(mask_function: Callable[..., Any], bh_indices: bool = True) -> Callable[..., Any]:
        # Dynamo of torch 2.5 follows what a function takes from the one around it, and no further.
        original = vmapped

        def mask(batch: Any, head: Any, query: Any, key: Any) -> Any:
            if not is_traced(query, key):
                return original(mask_function, bh_indices)(batch, head, query, key)
            if not bh_indices:
                return mask_function(batch, head, query[:, None], key[None, :]).expand(query.shape[0], key.shape[0])
            found = mask_function(
                batch[:, None, None, None], head[None, :, None, None], query[None, None, :, None], key[None, None, None]
            )
            return found.expand(batch.shape[0], head.shape[0], query.shape[0], key.shape[0])

        return mask

    return expand


def _no_mode_when_traced(mode: Callable[[], Any]) -> Callable[[], Any]:
    """What stands for `TransformGetItemToIndex`, a mode that only vmap needs."""
    return lambda: contextlib.nullcontext() if is_traced() else mode()


def _replacements() -> tuple[Replacement, ...]:
    module = _module()
    found = (Replacement(module, _VMAP, _broadcasting), Replacement(module, _MODE, _no_mode_when_traced))
    return tuple(one for one in found if hasattr(module, one.name))


PATCH = Patch(
    name="vmap-masks",
    replaces="transformers.masking_utils._vmap_for_bhqkv and TransformGetItemToIndex (4.53 to 4.57), when traced",
    why="masks are made with torch.vmap, which torch.export does not follow",
    page="docs/known-failures/vmap-masks.md",
    probe=_probe,
    replacements=_replacements,
)
