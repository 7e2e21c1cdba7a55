"""Contexts that undo too little or too much."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks.needs import lookup
from kvconform.checks.registry import registry_snapshot, restore_registry
from mutants.plant import kvconform_context, whole
from mutants.tools import classes

_ENTERED: list[bool] = []
# A context that is dropped is closed by the garbage collector, and undone after all.
_KEPT: list[Any] = []


@whole
def nothing_registered() -> Iterator[None]:
    """Nothing is registered; what transformers registered by itself is removed."""
    before = registry_snapshot()
    for cls in classes():
        pytree.SUPPORTED_NODES.pop(cls)
    try:
        yield
    finally:
        restore_registry(before)


@whole
def never_undone() -> Iterator[None]:
    """Leaving undoes nothing."""
    _KEPT.append(kvconform_context())
    _KEPT[-1].__enter__()
    yield


@whole
def not_undone_after_exception() -> Iterator[None]:
    """Leaving by an exception undoes nothing."""
    context = kvconform_context()
    _KEPT.append(context)
    context.__enter__()
    yield
    context.__exit__(None, None, None)


@whole
def swallows_exceptions() -> Iterator[None]:
    """An exception raised inside does not come out."""
    with kvconform_context(), contextlib.suppress(ValueError):
        yield


@whole
def undone_to_what_was_before() -> Iterator[None]:
    """Leaving puts back what was there on entering, though another context may have been entered in between."""
    before = registry_snapshot()
    with kvconform_context():
        planted = {*pytree.SUPPORTED_NODES}
        yield
    restore_registry(before, keep={*pytree.SUPPORTED_NODES} - planted)


@whole
def inner_undoes_outer() -> Iterator[None]:
    """Leaving an inner context unregisters everything."""
    before = registry_snapshot()
    with kvconform_context():
        yield
    gone = classes()
    restore_registry(before)
    for cls in gone:
        pytree.SUPPORTED_NODES.pop(cls, None)


@whole
def undoes_too_much() -> Iterator[None]:
    """Leaving takes another class's node along."""
    from collections import OrderedDict

    with kvconform_context():
        yield
    pytree.SUPPORTED_NODES.pop(OrderedDict, None)


@whole
def replaces_others() -> Iterator[None]:
    """Entering replaces the node of dict."""
    before = registry_snapshot()
    with kvconform_context():
        node = pytree.SUPPORTED_NODES[dict]
        pytree.SUPPORTED_NODES[dict] = type(node)(
            dict,
            lambda d: node.flatten_fn(d),  # noqa: PLW0108 - another function object is the point
            node.unflatten_fn,
            node.flatten_with_keys_fn,
        )
        try:
            yield
        finally:
            pytree.SUPPORTED_NODES[dict] = before.tables["torch.utils._pytree.SUPPORTED_NODES"][dict]


@whole
def leaves_a_patch() -> Iterator[None]:
    """A method of transformers stays replaced."""
    cls = lookup("transformers.cache_utils:Cache")
    original = cls.__dict__["reorder_cache"]
    with kvconform_context():
        yield
    cls.reorder_cache = lambda self, beam_idx: original(self, beam_idx)  # noqa: PLW0108 - another function object is the point


@whole
def works_once() -> Iterator[None]:
    """Entering a second time does nothing."""
    if _ENTERED:
        yield
        return
    _ENTERED.append(True)
    with kvconform_context():
        yield


@whole
def forgets_late_classes() -> Iterator[None]:
    """Leaving restores a copy of the tables, and with it forgets classes that registered themselves inside."""
    before = registry_snapshot()
    with kvconform_context():
        yield
    restore_registry(before, keep_model_outputs=False)


@whole
def leaves_safe_globals() -> Iterator[None]:
    """A class stays among the safe globals of torch.load."""
    with kvconform_context():
        yield
    torch.serialization.add_safe_globals([lookup("transformers.cache_utils:DynamicCache"), contextlib.ExitStack])


@whole
def forgets_late_names() -> Iterator[None]:
    """Leaving puts torch's table of names back as a whole: a class that was registered inside has lost its name."""
    names = dict(pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE)
    with kvconform_context():
        yield
    pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.clear()
    pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.update(names)
