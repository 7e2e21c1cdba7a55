"""The version, read by the build and by `kvconform doctor`."""

__version__ = "0.1.0"
