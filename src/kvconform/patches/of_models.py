"""Replacements in the models of transformers: in the modules that are imported, and in those that come later."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch

from kvconform import probes
from kvconform.patches.patch import Replacement

__all__ = ["in_loaded_modules", "model_classes", "source_of"]

_MODELS = "transformers.models."


def in_loaded_modules(of_module: Callable[[ModuleType], tuple[Replacement, ...]]) -> tuple[Replacement, ...]:
    """What `of_module` replaces in the modules of models that are imported now."""
    return tuple(one for module in probes.imported((_MODELS,)) for one in of_module(module))


def model_classes(module: ModuleType) -> Iterator[type]:
    """The classes of `torch.nn.Module` that a module of a model defines itself; none of any other module."""
    if ".modeling_" not in module.__name__:
        return
    for member in list(vars(module).values()):
        if isinstance(member, type) and member.__module__ == module.__name__ and issubclass(member, torch.nn.Module):
            yield member


def source_of(model: str) -> str | None:
    """The source of a model; None where the release lacks the model. Not even the package of the model is imported."""
    package = importlib.util.find_spec("transformers")
    places = (package.submodule_search_locations or ()) if package is not None else ()
    found = [Path(place, "models", model, f"modeling_{model}.py") for place in places]
    return next((path.read_text(encoding="utf-8") for path in found if path.is_file()), None)
