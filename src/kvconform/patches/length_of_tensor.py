"""The first dimension of a tensor as `torch.export` knows it, where transformers asks `len` for it.

`DynamicCache.update` of transformers 4.45 to 4.50 asks `len(self.key_cache[layer]) == 0` of a tensor. `len` gives a
Python int, so that a dynamic batch becomes a constant of the program. A function of the same name in the module is
found before the builtin, and gives `shape[0]`, which equals `len` and may be a symbol.
"""

from __future__ import annotations

import builtins
import importlib
from types import ModuleType
from typing import Any

import torch

from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed

__all__ = ["PATCH"]


def _module() -> ModuleType | None:
    try:
        return importlib.import_module("transformers.cache_utils")
    except ModuleNotFoundError:
        return None


class _Asked(torch.Tensor):
    """A tensor that knows whether it, or what came of it, was asked for its `len`."""

    lengths = 0

    def __len__(self) -> int:
        _Asked.lengths += 1
        return int(self.shape[0])


def _probe() -> Answer:
    module = _module()
    if module is None:
        return not_applicable("transformers is not installed")
    cache, states = module.DynamicCache(), torch.zeros(1, 1, 1, 1).as_subclass(_Asked)
    _Asked.lengths = 0
    for _ in range(2):
        cache.update(states, states, 0)
    if not _Asked.lengths:
        return not_needed("DynamicCache.update of this release does not ask for the len() of a tensor")
    return needed("DynamicCache.update of this release asks for the len() of a tensor")


def _length(of: Any) -> Any:
    if isinstance(of, torch.Tensor) and of.dim():
        return of.shape[0]
    return builtins.len(of)


PATCH = Patch(
    name="length-of-tensor",
    replaces="len, as the functions of transformers.cache_utils see it (4.45 to 4.50)",
    why="len() of a tensor is a Python int, which makes a dynamic batch a constant of the program",
    page="docs/known-failures/batch-becomes-constant.md",
    probe=_probe,
    replacements=lambda: (Replacement(_module(), "len", lambda _: _length),),
)
