"""The first dimension of a tensor as `torch.export` knows it, where transformers asks `len` for it.

`DynamicCache.update` of transformers 4.45 to 4.50 asks `len(self.key_cache[layer]) == 0` of a tensor. `len` gives a
Python int, so that a dynamic batch becomes a constant of the program. A function of the same name in the module is
found before the builtin, and gives `shape[0]`, which equals `len` and may be a symbol. The cache that Falcon-H1 brings
(seen in 4.57) asks the same in its own module.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
from types import ModuleType
from typing import Any

import torch

from kvconform.patches.of_models import in_loaded_modules, source_of
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed

__all__ = ["PATCH"]

_OF_A_MODEL = "falcon_h1"
_ASKS = "len(self.key_cache[layer_idx])"
"""How the cache that a model brings asks for the len() of a tensor."""


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
    if _Asked.lengths:
        return needed("DynamicCache.update of this release asks for the len() of a tensor")
    if _ASKS in (source_of(_OF_A_MODEL) or ""):
        return needed("the cache that Falcon-H1 brings asks for the len() of a tensor")
    return not_needed("no cache of this release asks for the len() of a tensor")


def _length(of: Any) -> Any:
    if isinstance(of, torch.Tensor) and of.dim():
        return of.shape[0]
    return builtins.len(of)


def _of_module(module: ModuleType) -> tuple[Replacement, ...]:
    """`len`, as the functions of a model's module see it that brings a cache of two lists."""
    return (Replacement(module, "len", lambda _: _length),) if any(map(_asks, vars(module).values())) else ()


def _asks(member: Any) -> bool:
    update = vars(member).get("update") if isinstance(member, type) else None
    return inspect.isfunction(update) and {"len", "key_cache"} <= set(update.__code__.co_names)


def _replacements() -> tuple[Replacement, ...]:
    return (Replacement(_module(), "len", lambda _: _length), *in_loaded_modules(_of_module))


PATCH = Patch(
    name="length-of-tensor",
    replaces="len, as the functions of transformers.cache_utils (4.45 to 4.50) and of Falcon-H1's module see it",
    why="len() of a tensor is a Python int, which makes a dynamic batch a constant of the program",
    page="docs/known-failures/batch-becomes-constant.md",
    probe=_probe,
    replacements=_replacements,
    of_module=_of_module,
)
