"""Reads, compares and restores every table where torch keeps pytree nodes.

Independent of `kvconform.pytree` on purpose: the suite judges that module too. Tables: `torch.utils._pytree`
(nodes, two
serialized-name tables, constants, the queue that is replayed when `torch.utils._cxx_pytree` is imported),
`torch.fx._pytree`,
optree's C++ registry where it is loaded, and `torch.serialization`'s safe globals.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kvconform.checks.errors import ExpectationError

# (module, attribute); a release that lacks one has nothing to restore in it.
_TABLES = (
    ("torch.utils._pytree", "SUPPORTED_NODES"),
    ("torch.utils._pytree", "SUPPORTED_SERIALIZED_TYPES"),
    ("torch.utils._pytree", "SERIALIZED_TYPE_TO_PYTHON_TYPE"),
    ("torch.utils._pytree", "CONSTANT_NODES"),
    ("torch.utils._pytree", "_cxx_pytree_pending_imports"),
    ("torch.fx._pytree", "SUPPORTED_NODES"),
    ("torch.fx._pytree", "SUPPORTED_NODES_EXACT_MATCH"),
)
_OPTREE = "optree.registry._NODETYPE_REGISTRY"
_SAFE_GLOBALS = "torch.serialization safe globals"


@dataclass(frozen=True)
class RegistrySnapshot:
    """Copies of the tables at one moment, by name."""

    tables: dict[str, Any]

    def differences(self, other: RegistrySnapshot) -> list[str]:
        """What `other` has that this lacks, lacks, or has otherwise; a line an entry."""
        lines: list[str] = []
        for name, before in self.tables.items():
            lines += _table_differences(name, before, other.tables.get(name))
        return lines


def registry_snapshot() -> RegistrySnapshot:
    """Copy every table as it is now."""
    import torch.fx._pytree
    import torch.utils._pytree

    tables: dict[str, Any] = {}
    for module, attribute in _TABLES:
        table = getattr(sys.modules[module], attribute, None)
        if table is not None:
            tables[f"{module}.{attribute}"] = table.copy()
    optree = _optree_table()
    if optree is not None:
        tables[_OPTREE] = dict(optree)
    tables[_SAFE_GLOBALS] = list(torch.serialization.get_safe_globals())
    return RegistrySnapshot(tables)


def expect_registry_unchanged(before: RegistrySnapshot, where: str = "", *, safe_globals: bool = True) -> None:
    """Prove that no table differs from `before`: nothing left behind, nothing lost, nothing replaced."""
    __tracebackhide__ = True
    lines = before.differences(registry_snapshot())
    if not safe_globals:
        lines = [line for line in lines if not line.startswith(_SAFE_GLOBALS)]
    if lines:
        shown = "; ".join(lines[:6]) + (f"; and {len(lines) - 6} more" if len(lines) > 6 else "")  # noqa: PLR2004
        raise ExpectationError(f"pytree tables differ, expected no difference: {shown}{f' [{where}]' if where else ''}")


def restore_registry(
    snapshot: RegistrySnapshot, *, keep_model_outputs: bool = True, keep: Iterable[type] = ()
) -> RegistrySnapshot:
    """Put every table back, but for the entries of classes in `keep`, and return what is in force now.

    ModelOutput classes register themselves when a modelling module is imported, once a process: dropping them would
    break every
    later use of that module, so new ones are kept and belong to the returned snapshot.
    """
    kept = {*keep, *(_new_model_outputs(snapshot) if keep_model_outputs else ())}
    for module, attribute in _TABLES:
        before = snapshot.tables.get(f"{module}.{attribute}")
        if before is not None:
            _restore_table(getattr(sys.modules[module], attribute), before, kept)
    _restore_optree(snapshot.tables.get(_OPTREE), kept)
    _restore_safe_globals(snapshot.tables[_SAFE_GLOBALS])
    return registry_snapshot()


def _table_differences(name: str, before: Any, after: Any) -> list[str]:
    if after is None:
        return [f"{name} is gone"]
    if isinstance(before, dict):
        added = [f"{name} gained {_entry(key)}" for key in after if key not in before]
        lost = [f"{name} lost {_entry(key)}" for key in before if key not in after]
        changed = [f"{name} changed {_entry(key)}" for key in before if key in after and before[key] != after[key]]
        return added + lost + changed
    first, second = list(before), list(after)
    added = [f"{name} gained {_entry(item)}" for item in second if item not in first]
    return added + [f"{name} lost {_entry(item)}" for item in first if item not in second]


def _entry(key: Any) -> str:
    """A short name for a class, a serialized name, or a (namespace, class) pair."""
    if isinstance(key, tuple) and key:
        key = next((part for part in key if isinstance(part, type)), key)
    return key.__name__ if isinstance(key, type) else str(key)[:80]


def _new_model_outputs(snapshot: RegistrySnapshot) -> set[type]:
    """ModelOutput classes that appeared since the snapshot."""
    generic = sys.modules.get("transformers.utils.generic")
    nodes = sys.modules["torch.utils._pytree"].SUPPORTED_NODES
    before = snapshot.tables["torch.utils._pytree.SUPPORTED_NODES"]
    if generic is None:
        return set()
    return {
        cls for cls in nodes if cls not in before and isinstance(cls, type) and issubclass(cls, generic.ModelOutput)
    }


def _belongs_to(key: Any, value: Any, classes: set[type]) -> bool:
    return key in classes if isinstance(key, type) else value in classes if isinstance(value, type) else False


def _restore_table(table: Any, before: Any, kept: set[type]) -> None:
    """Put a table back in place: torch holds references to these very objects."""
    if isinstance(table, dict):
        extra = {key: value for key, value in table.items() if key not in before and _belongs_to(key, value, kept)}
        table.clear()
        table.update(before)
        table.update(extra)
    elif isinstance(table, list):
        # The queue of registrations for _cxx_pytree: emptied by importing it, which nothing can or should take back.
        if table:
            table[:] = [*before, *(entry for entry in table if entry not in before and entry[0][0] in kept)]
    else:
        table.clear()
        table.update(before)


def _optree_table() -> dict[Any, Any] | None:
    """Optree's registry, if optree is loaded and torch uses it; its keys are classes or (namespace, class) pairs."""
    registry = sys.modules.get("optree.registry")
    if registry is None or "torch.utils._cxx_pytree" not in sys.modules:
        return None
    table = getattr(registry, "_NODETYPE_REGISTRY", None)
    return table if isinstance(table, dict) else None


def _restore_optree(before: dict[Any, Any] | None, kept: set[type]) -> None:
    table = _optree_table()
    if table is None or before is None:
        return
    import optree

    for key in [key for key in table if key not in before and isinstance(key, tuple)]:
        namespace = next((part for part in key if isinstance(part, str)), "torch")
        cls = next((part for part in key if isinstance(part, type)), None)
        if cls is not None and cls not in kept:
            optree.unregister_pytree_node(cls, namespace=namespace)


def _restore_safe_globals(before: list[Any]) -> None:
    import torch

    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)
