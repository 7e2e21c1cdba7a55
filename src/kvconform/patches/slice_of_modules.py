"""A slice of a ModuleList while torch 2.5 traces it.

In an export that is not strict, submodules stand behind proxies whose class is made from the module's own. Slicing a
ModuleList calls that class with the modules alone; in torch 2.5 it wants a path too. Here the slice of such a proxy is
a plain ModuleList of the same proxies, as in torch 2.6 and later.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed

__all__ = ["PATCH"]


def _proxies() -> Any:
    """The module of these proxies; a release without their classes has no such code."""
    module = importlib.import_module("torch.fx.experimental.proxy_tensor")
    return module if hasattr(module, "_AttrProxy") and hasattr(module, "_ModuleStackTracer") else None


def _probe() -> Answer:
    proxies = _proxies()
    if proxies is None:
        return not_applicable("this release of torch has no proxies of modules")
    root = torch.nn.Module()
    root.layers = torch.nn.ModuleList([torch.nn.Identity()])
    proxy = proxies._ModuleStackTracer(root).proxy_type(root.layers, "layers")
    try:
        proxy[:1]
    except TypeError:
        return needed("this release of torch cannot slice the proxy of a ModuleList")
    return not_needed("this release of torch slices the proxy of a ModuleList")


def _slicing(original: Callable[..., Any]) -> Callable[..., Any]:
    proxy: Any = _proxies()._AttrProxy

    def getitem(self: torch.nn.ModuleList, idx: Any) -> Any:
        if isinstance(idx, slice) and isinstance(self, proxy):
            return torch.nn.ModuleList(list(self._modules.values())[idx])
        return original(self, idx)

    return getitem


PATCH = Patch(
    name="slice-of-modules",
    replaces="torch.nn.ModuleList.__getitem__, of proxies alone (torch 2.5)",
    why="layers taken as `self.layers[:n]` are the slice of a ModuleList, which torch 2.5 cannot trace",
    page="docs/known-failures/slice-of-modules.md",
    probe=_probe,
    replacements=lambda: (Replacement(torch.nn.ModuleList, "__getitem__", _slicing),),
)
