"""Notices what stays replaced in the modules that registrations like to patch."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MODULES = (
    "transformers.cache_utils",
    "transformers.masking_utils",
    "transformers.modeling_attn_mask_utils",
    "transformers.modeling_utils",
    "transformers.integrations.executorch",
    "transformers.integrations.sdpa_attention",
    "torch.export",
    "torch.export.dynamic_shapes",
    "torch.utils._pytree",
    "torch.fx._pytree",
    "torch.nn.functional",
)


@dataclass(frozen=True)
class PatchSnapshot:
    """The functions and classes of some modules, and the attributes of those classes, by name."""

    entries: dict[str, Any]
    again: Callable[[], PatchSnapshot]

    def changed(self) -> list[str]:
        """The names that are bound to something else, or to nothing, now."""
        now, nothing = self.again().entries, object()
        return sorted(name for name, value in self.entries.items() if now.get(name, nothing) is not value)

    def added(self) -> list[str]:
        """The names that are bound now and were not."""
        return sorted(self.again().entries.keys() - self.entries.keys())


def patch_snapshot() -> PatchSnapshot:
    """Read the modules as they are now; what a release lacks is left out."""
    entries: dict[str, Any] = {}
    for name in _MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for attribute, value in vars(module).items():
            if isinstance(value, (types.FunctionType, type)):
                entries[f"{name}.{attribute}"] = value
            if isinstance(value, type) and value.__module__ == name:
                entries.update(
                    {f"{name}.{attribute}.{key}": member for key, member in vars(value).items() if callable(member)}
                )
    return PatchSnapshot(entries, patch_snapshot)


def whole_snapshot() -> PatchSnapshot:
    """Read every module of torch and transformers that is imported now: what it holds, its classes, and its dicts."""
    entries: dict[str, Any] = {}
    for name, module in sys.modules.copy().items():
        if name.split(".")[0] not in {"torch", "transformers"}:
            continue
        for attribute, value in list(vars(module).items()):
            place = f"{name}.{attribute}"
            entries[place] = value
            # Not isinstance, which asks the value: some warn when they are asked anything.
            if issubclass(type(value), type) and value.__module__ == name:
                entries.update({f"{place}.{key}": member for key, member in list(vars(value).items())})
            if type(value) is dict and attribute != "__builtins__":
                entries.update({f"{place}[{key!r}]": member for key, member in list(value.items())})
    return PatchSnapshot(entries, whole_snapshot)
