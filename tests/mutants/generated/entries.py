"""For each of torch's tables, inside the context: the entry of a class is missing, stale, or another class's."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch.fx._pytree  # noqa: F401 - one of the tables
import torch.utils._pytree as pytree

from kvconform.checks.needs import lookup
from mutants.generated import Mutant

NAMES = ("DynamicCache", "StaticCache", "EncoderDecoderCache")
TABLES = {
    "nodes": ("torch.utils._pytree", "SUPPORTED_NODES"),
    "serialized": ("torch.utils._pytree", "SUPPORTED_SERIALIZED_TYPES"),
    "fx": ("torch.fx._pytree", "SUPPORTED_NODES"),
}


def table(name: str) -> dict[Any, Any]:
    """One of torch's tables."""
    module, attribute = TABLES[name]
    found: dict[Any, Any] = getattr(sys.modules[module], attribute)
    return found


def mutants() -> list[Mutant]:
    """One mutant a table, class and fault."""
    found = []
    for name in TABLES:
        for cls in NAMES:
            for fault, make in {"missing": _missing, "foreign": _foreign, "stale": _stale}.items():
                found.append(Mutant(f"entries/{name}-{cls}/{fault}", functools.partial(make, name, cls)))
    for cls in NAMES:
        found.append(Mutant(f"entries/names-{cls}/missing", functools.partial(_unnamed, cls)))
        found.append(Mutant(f"entries/names-{cls}/foreign", functools.partial(_misnamed, cls)))
    return found


def class_of(name: str) -> type:
    """A cache class of transformers."""
    found: type = lookup(f"transformers.cache_utils:{name}")
    return found


def _missing(name: str, cls: str) -> None:
    table(name).pop(class_of(cls), None)


def _foreign(name: str, cls: str) -> None:
    """The entry of another cache class."""
    other = NAMES[(NAMES.index(cls) + 1) % len(NAMES)]
    table(name)[class_of(cls)] = table(name)[class_of(other)]


def _stale(name: str, cls: str) -> None:
    """An entry as an older registration made it: keys and values only, in lists."""
    if name == "serialized":
        entry = table(name)[class_of(cls)]
        table(name)[class_of(cls)] = entry._replace(serialized_type_name="an.older.name")
    elif name == "fx":
        right = table(name)[class_of(cls)]
        table(name)[class_of(cls)] = _without_last(right)
    else:
        node = table(name)[class_of(cls)]
        table(name)[class_of(cls)] = type(node)(class_of(cls), *_old_functions(node), node.flatten_with_keys_fn)


def _without_last(flatten: Callable[..., Any]) -> Callable[..., Any]:
    return lambda cache, spec: list(flatten(cache, spec))[:-1]


def _old_functions(node: Any) -> tuple[Any, Any]:
    def flatten(cache: Any) -> Any:
        leaves, context = node.flatten_fn(cache)
        return leaves[::2] + leaves[1::2], context

    def unflatten(values: Any, context: Any) -> Any:
        values = list(values)
        half = (len(values) + 1) // 2
        paired = [None] * len(values)
        paired[::2], paired[1::2] = values[:half], values[half:]
        return node.unflatten_fn(paired, context)

    return flatten, unflatten


def _name_of(cls: str) -> str:
    return str(pytree.SUPPORTED_SERIALIZED_TYPES[class_of(cls)].serialized_type_name)


def _unnamed(cls: str) -> None:
    pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.pop(_name_of(cls), None)


def _misnamed(cls: str) -> None:
    other = NAMES[(NAMES.index(cls) + 1) % len(NAMES)]
    pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE[_name_of(cls)] = class_of(other)
