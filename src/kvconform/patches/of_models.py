"""Replacements in the models of transformers: in the modules that are imported, and in those that come later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import torch

from kvconform.patches.patch import Replacement

__all__ = ["in_loaded_modules", "model_classes"]

_MODELS = "transformers.models."


def in_loaded_modules(of_module: Callable[[ModuleType], tuple[Replacement, ...]]) -> tuple[Replacement, ...]:
    """What `of_module` replaces in the modules of models that are imported now."""
    return tuple(
        one for name, module in sys.modules.copy().items() if name.startswith(_MODELS) for one in of_module(module)
    )


def model_classes(module: ModuleType) -> Iterator[type]:
    """The classes of `torch.nn.Module` that a module of a model defines itself; none of any other module."""
    if ".modeling_" not in module.__name__:
        return
    for member in list(vars(module).values()):
        if isinstance(member, type) and member.__module__ == module.__name__ and issubclass(member, torch.nn.Module):
            yield member
