"""KV caches of transformers as correct pytree nodes on every release.

    from kvconform import register_flattening_functions

    with register_flattening_functions(patch_transformers=True):
        program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=...)

Importing this package imports neither transformers nor anything else of weight: names are looked up when used.
"""

from __future__ import annotations

import importlib
from typing import Any

from kvconform._version import __version__

_WHERE = {
    "build": (
        "make_dynamic_cache",
        "make_encoder_decoder_cache",
        "make_hybrid_cache",
        "make_mamba_cache",
        "make_sliding_window_cache",
        "make_static_cache",
    ),
    "errors": (
        "CacheStructureError",
        "KVConformError",
        "MissingTransformersError",
        "UnknownLayerError",
        "UnknownPatchError",
    ),
    "export.decoder": ("ExportedDecoder", "export_decoder", "load_decoder"),
    "export.saved": ("load_inputs", "save_inputs"),
    "export.tiny": ("make_tiny",),
    "flatten": (
        "flatten_cache",
        "flatten_dynamic_cache",
        "flatten_encoder_decoder_cache",
        "flatten_static_cache",
        "flatten_with_keys_cache",
        "flatten_with_keys_dynamic_cache",
        "flatten_with_keys_encoder_decoder_cache",
        "flatten_with_keys_static_cache",
        "make_flattening_function_for_dataclass",
        "unflatten_cache",
        "unflatten_dynamic_cache",
        "unflatten_encoder_decoder_cache",
        "unflatten_static_cache",
    ),
    "layers.layer_kinds": ("register_layer",),
    "patches.context": ("exportable", "patch_functions"),
    "recipes": (
        "DynamicCacheModule",
        "StaticCacheModule",
        "convert_and_export_with_cache",
        "export_with_dynamic_cache",
    ),
    "register": (
        "register_cache_adapter",
        "register_cache_flattening",
        "register_class_flattening",
        "register_flattening_functions",
        "unregister_cache_flattening",
        "unregister_class_flattening",
    ),
    "shapes": ("dynamic_shapes_for",),
    "text": ("string_type",),
    "view": ("CacheView", "crop_to", "mask_sizes", "reorder", "update", "view_of"),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]  # noqa: PLE0604 (they are strings, the table above shows it)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
