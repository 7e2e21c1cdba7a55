"""The constructor of the caches of transformers 4.54 and 4.55, in a strict export of torch 2.7 and later.

It asks `inspect.signature` which of its arguments are for the processor of the cache, also where there is none: of the
constructor of `None`. Dynamo traces through that question and cannot follow it, so that a module which makes a
DynamicCache does not export. Without a processor every argument is the cache's own, and nothing needs to be asked.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable

__all__ = ["PATCH"]

_ASKS = "parse_processor_args"


def _cache_module() -> ModuleType:
    return importlib.import_module("transformers.cache_utils")


def _probe() -> Answer:
    if importlib.util.find_spec("transformers") is None:
        return not_applicable("transformers is not installed")
    if not hasattr(_cache_module(), _ASKS):
        return not_applicable("the caches of this release take no processor")
    return needed("the constructor of a cache asks for the signature of no processor, which Dynamo cannot follow")


def _asks_for_none(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `parse_processor_args`: the processor's arguments, then the cache's."""

    @functools.wraps(original)
    def parse(processor_class: Any, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        if processor_class is None:
            return {}, dict(kwargs)
        found: tuple[dict[str, Any], dict[str, Any]] = original(processor_class, kwargs)
        return found

    return parse


PATCH = Patch(
    name="processor-arguments",
    replaces="parse_processor_args of transformers.cache_utils (4.54 and 4.55), where a cache has no processor",
    why="a strict export of torch 2.7 and later cannot trace the constructor of a cache",
    page="docs/known-failures/strict-makes-cache.md",
    probe=_probe,
    replacements=lambda: (Replacement(_cache_module(), _ASKS, _asks_for_none),),
)
