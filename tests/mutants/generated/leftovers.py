"""For each of torch's tables, after leaving the context in each way: an entry is left, lost or replaced."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import torch

from mutants.generated import Mutant
from mutants.generated.entries import NAMES, class_of
from mutants.plant import kvconform_context

_TABLES = {
    "nodes": ("torch.utils._pytree", "SUPPORTED_NODES"),
    "serialized": ("torch.utils._pytree", "SUPPORTED_SERIALIZED_TYPES"),
    "names": ("torch.utils._pytree", "SERIALIZED_TYPE_TO_PYTHON_TYPE"),
    "fx": ("torch.fx._pytree", "SUPPORTED_NODES"),
    "fx-exact": ("torch.fx._pytree", "SUPPORTED_NODES_EXACT_MATCH"),
}
_WAYS = ("leaving", "an-exception", "the-inner-context")


def mutants() -> list[Mutant]:
    """One mutant a table, fault and way of leaving."""
    found = []
    for name in _TABLES:
        for fault, spoil in {"left": _leave, "lost": _lose, "replaced": _replace}.items():
            for way in _WAYS:
                context = functools.partial(_spoilt, name, spoil, way)
                found.append(Mutant(f"leftovers/{name}-after-{way}/{fault}", context=context))
    found += [Mutant(f"leftovers/safe-globals/{cls}", context=functools.partial(_safe_global, cls)) for cls in NAMES]
    return found


_DEPTH = [0]


@contextlib.contextmanager
def _spoilt(name: str, spoil: Callable[[dict[Any, Any], dict[Any, Any]], None], way: str) -> Iterator[None]:
    module, attribute = _TABLES[name]
    table = getattr(sys.modules[module], attribute)
    _DEPTH[0] += 1
    depth, inside, raised = _DEPTH[0], {}, False
    try:
        with kvconform_context():
            inside = dict(table)
            try:
                yield
            except BaseException:
                raised = True
                raise
    finally:
        _DEPTH[0] -= 1
        now = {"leaving": not raised and depth == 1, "an-exception": raised, "the-inner-context": depth > 1}
        if now[way]:
            spoil(table, inside)


def _leave(table: dict[Any, Any], inside: dict[Any, Any]) -> None:
    """One entry that was made inside, or one that torch would make for a class of one's own, stays."""
    added = [key for key in inside if key not in table]
    if added:
        table[added[0]] = inside[added[0]]
    else:
        table["left" if all(isinstance(key, str) for key in table) and table else class_of(NAMES[0])] = lambda *_: True


def _lose(table: dict[Any, Any], inside: dict[Any, Any]) -> None:
    for key in (OrderedDict, deque, list, *list(table)):
        if table.pop(key, None) is not None:
            return


def _replace(table: dict[Any, Any], inside: dict[Any, Any]) -> None:
    keys = list(table)
    for key in (OrderedDict, deque, *keys):
        if key in table:
            table[key] = next((table[other] for other in reversed(keys) if table[other] is not table[key]), None)
            return


@contextlib.contextmanager
def _safe_global(cls: str) -> Iterator[None]:
    with kvconform_context():
        yield
    torch.serialization.add_safe_globals([class_of(cls)])
