"""What exporting raises. Each message says what happened, why, and the next command."""

from __future__ import annotations

from kvconform.errors import KVConformError

__all__ = ["BundleError", "ExportError", "NoProgramError", "SavedInputsError", "TinyConfigError", "WatchError"]


class WatchError(KVConformError, ValueError):
    """`generate()` calls the model in a way that is not understood."""


class ExportError(KVConformError, RuntimeError):
    """A model gives no program, or a program that answers differently from the model."""


class NoProgramError(KVConformError, ValueError):
    """No exported program takes these inputs."""


class BundleError(KVConformError, ValueError):
    """A saved bundle cannot be loaded here."""


class SavedInputsError(KVConformError, ValueError):
    """A value that cannot be saved as inputs, or a file that does not hold any."""


class TinyConfigError(KVConformError, ValueError):
    """No tiny model can be made from a config class."""
