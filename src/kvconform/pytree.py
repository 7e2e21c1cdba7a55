"""Exact, reversible registration of pytree nodes in every table that torch keeps.

torch knows a node class in up to seven places: `torch.utils._pytree.SUPPORTED_NODES`, its two tables of
serialized types, the two tables of `torch.fx._pytree`, and, where optree is installed, a C++ registry with a
queue of registrations to replay once `torch.utils._cxx_pytree` is imported. Its public functions can add to
them but not take away, and a class taken from the Python tables alone makes the next registration fail with
"already registered in namespace 'torch'" (torch 2.6 to 2.15 with transformers 4.50 to 4.55). Everything here
works on all of them at once.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as py_pytree

__all__ = ["Node", "Registration", "Snapshot", "current", "put", "remove", "restore", "snapshot"]

_ABSENT: Any = object()
_QUEUED: Any = object()
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Node:
    """How one class becomes leaves and back.

    Attributes:
        cls: the class.
        flatten: `flatten(obj) -> (children, context)`.
        unflatten: `unflatten(children, context) -> obj`.
        flatten_with_keys: like flatten, with `(key, child)` pairs.
        serialized_type_name: the name under which `torch.export.save` writes the class.
    """

    cls: type
    flatten: Callable[[Any], tuple[list[Any], Any]]
    unflatten: Callable[[Iterable[Any], Any], Any]
    flatten_with_keys: Callable[[Any], tuple[list[tuple[Any, Any]], Any]]
    serialized_type_name: str

    def flatten_for_fx(self, obj: Any, spec: Any) -> list[Any]:
        """Children of `obj` for the generated code of an exported module.

        torch zips them with the spec and would drop what does not fit, so a different structure is refused here.

        Raises:
            ValueError: the structure of `obj` is not the one the program was exported with.
        """
        children, context = self.flatten(obj)
        if context != spec.context:
            raise ValueError(
                f"this {self.cls.__name__} has the structure {context}, the program was exported with {spec.context}: "
                "export once per structure (below and past a sliding window are two), or pass a cache of that structure"
            )
        return children


@dataclass(frozen=True)
class Registration:
    """What every table said about one class at one moment, to be put back later.

    Attributes:
        cls: the class.
        node: how it is flattened, in torch.utils._pytree.
        serialized: how its context is written.
        fx_flatten: how torch.fx._pytree flattens it.
        fx_exact_match: whether that fits another structure.
        queued: its entries in the queue for the C++ registry, with their places.
        named: whether its serialized name leads to it; names can pass to another class.
        constant: whether it is a node without leaves.
        cxx: its entry in the C++ registry; or that it waits for that registry to be imported.
    """

    cls: type
    node: Any
    serialized: Any
    fx_flatten: Any
    fx_exact_match: Any
    queued: tuple[Any, ...]
    named: bool
    constant: bool
    cxx: Any

    @property
    def exists(self) -> bool:
        """Whether the class was a node in Python's table."""
        return self.node is not _ABSENT


@dataclass(frozen=True)
class Snapshot:
    """All tables at one moment. Two snapshots are equal if and only if the tables were."""

    nodes: dict[type, Any]
    serialized: dict[type, Any]
    names: dict[str, type]
    fx_nodes: dict[type, Any]
    fx_exact_match: dict[type, Any]
    queue: tuple[Any, ...]
    constants: frozenset[type]
    cxx: dict[type, Any] | None


def snapshot() -> Snapshot:
    """Copy all of torch's tables."""
    with _LOCK:
        return Snapshot(
            nodes=dict(py_pytree.SUPPORTED_NODES),
            serialized=dict(py_pytree.SUPPORTED_SERIALIZED_TYPES),
            names=dict(py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE),
            fx_nodes=dict(fx_pytree.SUPPORTED_NODES),
            fx_exact_match=dict(fx_pytree.SUPPORTED_NODES_EXACT_MATCH),
            queue=tuple(_queue()),
            constants=frozenset(_constants()),
            cxx=_cxx_nodes(),
        )


def restore(before: Snapshot, classes: Iterable[type] | None = None) -> None:
    """Put the tables back to what `before` says.

    Args:
        before: the tables to go back to.
        classes: only these classes. None: every class that either side knows.
    """
    with _LOCK:
        now = snapshot()
        known = {*before.nodes, *now.nodes, *before.fx_nodes, *now.fx_nodes}
        wanted = known if classes is None else known & set(classes)
        changed = {cls for cls in wanted if _differ(_registration_in(before, cls), _registration_in(now, cls))}
        for cls in changed:
            put(_registration_in(before, cls))
        _restore_names(before, wanted)
        if not _cxx_imported():
            kept = [entry for entry in now.queue if entry[0][0] not in changed]
            old = [entry for entry in before.queue if entry[0][0] in changed or entry in kept]
            _queue()[:] = old + [entry for entry in kept if entry not in old]


def _differ(before: Registration, now: Registration) -> bool:
    if before.cxx is _QUEUED and now.cxx is not _ABSENT:
        # The C++ registry was imported in between, and replayed what was queued for it.
        now = replace(now, cxx=_QUEUED)
    return before != now


def _restore_names(before: Snapshot, classes: set[type]) -> None:
    """Names can pass from class to class: two classes of one name, or two without."""
    names = py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE
    for name in {*before.names, *names}:
        owner, old = names.get(name), before.names.get(name)
        if owner is old or not {owner, old} & classes:
            continue
        if old is None:
            del names[name]
        else:
            names[name] = old


def current(cls: type) -> Registration:
    """What the tables say about `cls` now."""
    return replace(
        _registration_in(snapshot(), cls),
        queued=tuple((i, entry) for i, entry in enumerate(_queue()) if entry[0][0] is cls),
    )


def put(what: Node | Registration) -> None:
    """Make every table say `what` about its class, whatever they said before."""
    with _LOCK:
        remove(what.cls)
        if isinstance(what, Node):
            _register(what)
        elif what.exists:
            _reinstate(what)
        elif what.fx_flatten is not _ABSENT:
            _reinstate_fx(what)


def remove(cls: type) -> None:
    """Take `cls` out of every table. A class that is not there is left alone."""
    with _LOCK:
        node = py_pytree.SUPPORTED_NODES.pop(cls, None)
        serialized = py_pytree.SUPPORTED_SERIALIZED_TYPES.pop(cls, None)
        if (
            serialized is not None
            and py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(serialized.serialized_type_name) is cls
        ):
            del py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE[serialized.serialized_type_name]
        fx_pytree.SUPPORTED_NODES.pop(cls, None)
        fx_pytree.SUPPORTED_NODES_EXACT_MATCH.pop(cls, None)
        _constants().discard(cls)
        if _cxx_imported():
            if node is not None:
                _remove_from_cxx(cls)
        else:
            _queue()[:] = [entry for entry in _queue() if entry[0][0] is not cls]


def _register(node: Node) -> None:
    py_pytree.register_pytree_node(
        node.cls,
        node.flatten,
        node.unflatten,
        serialized_type_name=node.serialized_type_name,
        flatten_with_keys_fn=node.flatten_with_keys,
    )
    fx_pytree.register_pytree_flatten_spec(node.cls, node.flatten_for_fx)


def _reinstate(saved: Registration) -> None:
    """Put back the very objects that were in the tables, not equal ones."""
    cls = saved.cls
    py_pytree.SUPPORTED_NODES[cls] = saved.node
    if saved.serialized is not _ABSENT:
        py_pytree.SUPPORTED_SERIALIZED_TYPES[cls] = saved.serialized
        if saved.named:
            py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE[saved.serialized.serialized_type_name] = cls
    if saved.constant:
        _constants().add(cls)
    _reinstate_fx(saved)
    if _cxx_imported():
        _reinstate_cxx(saved)
    else:
        for position, entry in saved.queued:
            _queue().insert(position, entry)


def _reinstate_cxx(saved: Registration) -> None:
    if saved.cxx is _QUEUED:
        # It waited when this was saved, and importing the registry would have replayed it.
        cxx = importlib.import_module("torch.utils._cxx_pytree")
        cxx._private_register_pytree_node(saved.cls, saved.node.flatten_fn, saved.node.unflatten_fn)
    elif saved.cxx is not _ABSENT:
        entry = saved.cxx
        importlib.import_module("optree").register_pytree_node(
            saved.cls,
            entry.flatten_func,
            entry.unflatten_func,
            path_entry_type=entry.path_entry_type,
            namespace="torch",
        )


def _reinstate_fx(saved: Registration) -> None:
    if saved.fx_flatten is not _ABSENT:
        fx_pytree.SUPPORTED_NODES[saved.cls] = saved.fx_flatten
    if saved.fx_exact_match is not _ABSENT:
        fx_pytree.SUPPORTED_NODES_EXACT_MATCH[saved.cls] = saved.fx_exact_match


def _registration_in(tables: Snapshot, cls: type) -> Registration:
    serialized = tables.serialized.get(cls, _ABSENT)
    return Registration(
        cls=cls,
        node=tables.nodes.get(cls, _ABSENT),
        serialized=serialized,
        fx_flatten=tables.fx_nodes.get(cls, _ABSENT),
        fx_exact_match=tables.fx_exact_match.get(cls, _ABSENT),
        queued=(),
        named=is_named(tables, cls),
        constant=cls in tables.constants,
        cxx=_cxx_in(tables, cls),
    )


def is_named(tables: Snapshot, cls: type) -> bool:
    """Whether the serialized name of `cls` leads to it, and not to another class of that name."""
    serialized = tables.serialized.get(cls)
    return serialized is not None and tables.names.get(serialized.serialized_type_name) is cls


def _queue() -> list[Any]:
    return getattr(py_pytree, "_cxx_pytree_pending_imports", [])


def _constants() -> set[type]:
    # Newer torch keeps classes registered as constants apart; they are nodes in the other tables too.
    found: set[type] = getattr(py_pytree, "CONSTANT_NODES", set())
    return found


def _cxx_imported() -> bool:
    return bool(getattr(py_pytree, "_cxx_pytree_imported", False))


def _cxx_nodes() -> dict[type, Any] | None:
    """What torch has registered in the C++ registry; None as long as that is not in use."""
    if not _cxx_imported():
        return None
    known = importlib.import_module("optree").register_pytree_node.get(namespace="torch")
    # The answer includes the nodes that optree knows by itself, list and dict among them.
    return {cls: entry for cls, entry in known.items() if entry.namespace == "torch"}


def _cxx_in(tables: Snapshot, cls: type) -> Any:
    if tables.cxx is not None:
        return tables.cxx.get(cls, _ABSENT)
    return _QUEUED if any(entry[0][0] is cls for entry in tables.queue) else _ABSENT


def _remove_from_cxx(cls: type) -> None:
    optree = importlib.import_module("optree")
    try:
        optree.unregister_pytree_node(cls, namespace="torch")
    except ValueError:
        # A class that reached the Python table without the public function was never in the C++ one.
        if optree.register_pytree_node.get(cls, namespace="torch") is not None:
            raise


def keyed(names: Iterable[str], children: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Pair children with the key path entries that name them."""
    return [(py_pytree.MappingKey(name), child) for name, child in zip(names, children, strict=True)]


TENSOR_LIKE = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)
"""What becomes a leaf wherever it is found: tensors, and the symbols that torch.export puts in place of numbers."""
