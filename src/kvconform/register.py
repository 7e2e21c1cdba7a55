"""Registering cache classes with torch, for a block of code or for good.

Registrations that are known to be wrong are replaced, not skipped, and put back on leaving:

    DynamicCache        by transformers.cache_utils at import (4.50 to 4.55): two lists of tensors, so that layer
                        classes, windows and skipped layers are lost
    DynamicCache        by a call of transformers.integrations.executorch (4.56 and later): the same, and the counters
                        past a window
    every Cache         by transformers.exporters when its exporter runs (5.13 and later): counters stand in the
                        context, so that an exported program is good for one length
    ModelOutput classes by transformers.utils.generic at import (all releases): unflattened through a constructor that
                        interprets its first field; until 4.53 without key paths
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

from torch.utils import _pytree as py_pytree

from kvconform import blocks, flatten, probes, pytree
from kvconform.arrivals import Watch
from kvconform.errors import CacheStructureError
from kvconform.layers.cache_kinds import cache_model_of
from kvconform.layers.layer_kinds import learn_layers
from kvconform.layers.model_layers import layer_classes_of_models
from kvconform.pytree import Node, Registration
from kvconform.reusable import reusable

__all__ = [
    "register_cache_adapter",
    "register_cache_flattening",
    "register_class_flattening",
    "register_flattening_functions",
    "unregister_cache_flattening",
    "unregister_class_flattening",
]

_ADAPTED: dict[type, Node] = {}


def register_class_flattening(
    cls: type,
    flatten_fn: Callable[[Any], tuple[list[Any], Any]],
    unflatten_fn: Callable[..., Any],
    flatten_with_keys_fn: Callable[[Any], tuple[list[tuple[Any, Any]], Any]],
    check: Callable[[], Any] | None = None,
) -> bool:
    """Register one class as a pytree node, in every table of torch.

    Args:
        cls: the class.
        flatten_fn: `flatten_fn(obj) -> (children, context)`.
        unflatten_fn: `unflatten_fn(children, context) -> obj`.
        flatten_with_keys_fn: like flatten_fn, with `(key, child)` pairs.
        check: makes an example, which is flattened and rebuilt at once. A failed check leaves nothing registered.

    Returns:
        True, or False if the class was registered already (which is no error).

    Raises:
        CacheStructureError: the check's example did not survive.
    """
    if cls in py_pytree.SUPPORTED_NODES:
        return False
    before = pytree.current(cls)
    pytree.put(Node(cls, flatten_fn, unflatten_fn, flatten_with_keys_fn, f"{cls.__module__}.{cls.__qualname__}"))
    if check is not None:
        try:
            _check(cls, check())
        except BaseException:
            pytree.put(before)
            raise
    return True


def unregister_class_flattening(cls: type) -> None:
    """Take a class out of every table of torch. A class that is not registered is left alone."""
    pytree.remove(cls)


def register_cache_adapter(cls: type, node: Node | None = None) -> None:
    """Have a class of one's own registered together with transformers' caches from now on.

    A subclass of transformers' Cache needs no adapter. A class with a storage of its own does.

    Args:
        cls: the class.
        node: how it becomes leaves and back. None: its attributes, tensors as leaves and the rest as JSON.
    """
    _ADAPTED[cls] = node if node is not None else flatten.cache_node(cls)


def register_cache_flattening(patch_transformers: bool = True) -> dict[type, Registration]:
    """Register every cache class and every ModelOutput class, replacing wrong registrations. For good, until undone.

    Classes that are created later are not registered: call it again, or use `register_flattening_functions`.

    Args:
        patch_transformers: register the classes of transformers too, not only those with an adapter.

    Returns:
        What was there before, for `unregister_cache_flattening`.

    Raises:
        MissingTransformersError: patch_transformers without transformers.
    """
    if patch_transformers:
        _learn()
    return _register(_nodes(patch_transformers))


def _register(nodes: dict[type, Node]) -> dict[type, Registration]:
    done: dict[type, Registration] = {}
    # A class that was defined again, as a notebook does, has the name of the one before: whose it is now comes last.
    before = pytree.snapshot()
    named = {cls: pytree.is_named(before, cls) for cls in nodes}
    try:
        for cls in sorted(nodes, key=named.__getitem__):
            done[cls] = replace(pytree.current(cls), named=named[cls])
            pytree.put(nodes[cls])
    except BaseException:
        unregister_cache_flattening(done)
        raise
    return done


def _nodes(patch_transformers: bool, *, counted: bool = False) -> dict[type, Node]:
    if not patch_transformers:
        return dict(_ADAPTED)
    found = (*probes.model_output_classes(), *probes.cache_classes())
    return {cls: _node_of(cls, counted=counted) for cls in found} | _ADAPTED


def _node_of(cls: type, *, counted: bool) -> Node:
    if issubclass(cls, probes.model_output_class()):
        return flatten.model_output_node(cls)
    return flatten.cache_node(cls, counted=counted)


def _learn() -> None:
    """Import what is asked later and try the classes there are, so that nothing is tried inside a trace."""
    probes.cache_class("Cache")
    probes.model_output_class()
    learn_layers()
    if probes.has_layers():
        for cls in probes.cache_classes():
            cache_model_of(cls)


def unregister_cache_flattening(done: dict[type, Registration]) -> None:
    """Put back what `register_cache_flattening` found.

    Args:
        done: what it returned.
    """
    for registration in reversed(done.values()):
        pytree.put(registration)


@reusable
def register_flattening_functions(
    patch_transformers: bool = True, *, counted: bool = False
) -> Iterator[dict[type, Registration]]:
    """Inside the block every cache class is a correct pytree node; after it torch's tables are what they were.

    Also when the block ends in an exception, when blocks are nested or run in threads, and when transformers registers
    a cache class inside. A class that is created inside, by importing a model or by hand, is a node from then on and
    until the block ends; it is then as if it had been created before the block. Programs saved or loaded inside go
    through torch's safe unpickler. What is returned can be entered again, also inside itself, and decorates functions.

    Args:
        patch_transformers: register the classes of transformers too, not only those with an adapter.
        counted: give each sliding layer one structure for all lengths, with its counter as a leaf below its window too.
            A program takes all lengths only if its layers were traced so, which the patch `sliding-windows` does;
            `exportable()` enters both. Otherwise a layer below its window and one past it are two structures.

    Yields:
        The classes that were there on entering, each with what the tables said of it before.
    """
    if patch_transformers:
        # Looking for the classes imports modules that register some: what they do belongs to the state before.
        _learn()
    block = blocks.enter(
        lambda late: _register(
            {
                cls: node
                for cls, node in _nodes(patch_transformers, counted=counted).items()
                if cls not in late or cls in _ADAPTED
            }
        ),
        lambda: _pickled_classes() if patch_transformers else [],
        _watch if patch_transformers else None,
        counted=counted,
    )
    try:
        yield block.done
    finally:
        blocks.leave(block)


def _watch() -> Watch:
    bases = (probes.cache_class("Cache"), probes.model_output_class())
    return Watch(tuple(base for base in bases if base is not None), _created, _loaded)


def _created(cls: type) -> None:
    if not probes.stands_in(cls):
        blocks.arrive(cls, _node_of)


def _loaded(module: ModuleType) -> None:
    """Register the caches of a module that are caches by name alone, and try its classes, which are complete now."""
    found = probes.caches_by_name(module)
    for cls in found:
        blocks.arrive(cls, _node_of)
    if probes.has_layers():
        learn_layers()
        blocks.make_known(layer_classes_of_models())
        cache: Any = probes.cache_class("Cache")
        for cls in {*found, *(cls for cls in probes.classes_in(module) if issubclass(cls, cache))}:
            cache_model_of(cls)


def _pickled_classes() -> list[Any]:
    """Classes that the pickled example inputs of a saved program name."""
    layers = probes.classes_in(probes.transformers_cache_utils())
    return [*{*layers, *layer_classes_of_models(), *probes.cache_classes(), *probes.model_output_classes()}]


def _check(cls: type, example: Any) -> None:
    leaves, spec = py_pytree.tree_flatten(example)
    again, spec_again = py_pytree.tree_flatten(py_pytree.tree_unflatten(leaves, spec))
    lost = [i for i, (a, b) in enumerate(zip(leaves, again, strict=False)) if a is not b]
    if spec != spec_again or len(leaves) != len(again) or lost:
        raise CacheStructureError(
            f"the registration of {cls.__name__} does not survive its own check: {spec} came back as {spec_again}"
            + (f", leaves {lost} are other objects" if lost else "")
            + ": correct its flatten and unflatten functions"
        )
