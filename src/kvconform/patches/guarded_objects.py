"""The guards of a program that torch 2.9 exported strictly from objects.

A program of torch 2.9 checks its inputs by the guards of its trace. It finds an input in a guard by its key path,
`L['cache']['key_D_0']`. Dynamo, which traces a strict export, names it by where it found it,
`L['cache'].layers[0].keys`. For lists and dicts these are the same; for objects of a class they are not, and the
program raises `NameError: name 'L' is not defined` when it runs. Here the sizes that Dynamo found are named by key
paths.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed
from kvconform.patches.returned_objects import flattens_inside

__all__ = ["PATCH"]


def _probe() -> Answer:
    if not hasattr(importlib.import_module("torch.export.exported_program"), "_convert_guards_to_code"):
        return not_applicable("programs of this torch do not check the guards of their trace")
    if flattens_inside():
        return not_needed("strict export of this torch traces leaves, which are named by key paths")
    return needed("Dynamo of this torch names inputs in guards by attributes, and programs look for key paths")


class _Number(int):
    """An int that is told from every other one of its value."""


def _by_key_paths(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `torch.export._trace._export_to_torch_ir`."""

    @functools.wraps(original)
    def export(
        module: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, *more: Any, **named: Any
    ) -> Any:
        places = _Places(module, args, kwargs or {})
        captured = original(module, args, kwargs, *more, **named)
        symbols = _symbols_of(captured)
        if symbols is not None:
            for sources in symbols.var_to_sources.values():
                sources[:] = map(places.named, sources)
        return captured

    return export


def _symbols_of(captured: torch.fx.GraphModule) -> Any:
    return importlib.import_module("torch.export.exported_program")._get_shape_env(captured)


class _Places:
    """Where the leaves of a module's arguments are, by attributes and by key paths."""

    def __init__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        function = module.forward if isinstance(module, torch.nn.Module) else module
        found = inspect.signature(function).bind(*args, **kwargs).arguments
        paths, spec = py_pytree.tree_flatten_with_path(found)
        leaves = [_Number(leaf) if type(leaf) is int else leaf for _, leaf in paths]
        self._arguments = py_pytree.tree_unflatten(leaves, spec)
        self._paths = {id(leaf): py_pytree.keystr(path) for leaf, (path, _) in zip(leaves, paths, strict=True)}
        self._leaves = leaves  # They stay alive, since they are known by identity.

    def named(self, source: Any) -> Any:
        """The source, with a key path in the place of the attributes that lead to a leaf."""
        found = importlib.import_module("torch._dynamo.source")
        if isinstance(source, found.TensorPropertySource):
            return found.TensorPropertySource(self.named(source.base), source.prop, source.idx)
        try:
            leaf = eval(source.name(), {"L": self._arguments})  # noqa: S307 (a name that Dynamo wrote)
        except Exception:  # noqa: BLE001 (a source that is no argument stays what it is)
            return source
        path = self._paths.get(id(leaf))
        return source if path is None else _named("L" + path)


def _named(name: str) -> Any:
    """A source with this name."""
    found = importlib.import_module("torch._dynamo.source")

    class Named(found.LocalSource):  # type: ignore[misc, name-defined]
        def name(self) -> str:
            return name

    return Named(name)


PATCH = Patch(
    name="guarded-objects",
    replaces="torch.export._trace._export_to_torch_ir (torch 2.9)",
    why="a program exported strictly looks in its guards for key paths, where Dynamo named attributes",
    page="docs/known-failures/strict-returns-cache.md",
    probe=_probe,
    replacements=lambda: (
        Replacement(importlib.import_module("torch.export._trace"), "_export_to_torch_ir", _by_key_paths),
    ),
)
