"""What kvconform raises. Each message names the thing, the release it was met on, and the next call."""

from __future__ import annotations

__all__ = [
    "CacheStructureError",
    "KVConformError",
    "MissingTransformersError",
    "UnknownLayerError",
    "UnknownPatchError",
]


class KVConformError(Exception):
    """Base of every error that kvconform raises on purpose."""


class UnknownLayerError(KVConformError, TypeError):
    """A cache holds something that no adapter describes."""


class CacheStructureError(KVConformError, ValueError):
    """A context, a leaf count or an argument that does not fit the cache."""


class MissingTransformersError(KVConformError, ImportError):
    """transformers is asked for and not installed."""


class UnknownPatchError(KVConformError, LookupError):
    """A patch is asked for by a name that no patch has."""
