"""From a model to programs that run: one call, greedy generation, saving, loading, comparing, inputs in a file."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "decoder": ("ExportedDecoder", "export_decoder", "load_decoder"),
    "errors": ("BundleError", "ExportError", "NoProgramError", "SavedInputsError", "TinyConfigError", "WatchError"),
    "architectures": ("architectures",),
    "runtimes": ("to_aoti", "to_onnx"),
    "saved": ("load_inputs", "save_inputs"),
    "tiny": ("make_tiny",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 (they are strings, the table above shows it)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
