"""What a KV cache refuses, each as a class of its own."""

from __future__ import annotations


class KVCacheError(Exception):
    """Base of everything that a cache of this package refuses."""


class KVCacheFull(KVCacheError):  # noqa: N818  (the interface's own name)
    """No free cells for the batch, not even after moving all free cells together. Nothing was changed.

    Attributes:
        needed: cells that the batch needs.
        free: cells that are free, or would be once the batch's expired tokens are forgotten.
        cells: cells of the cache.
    """

    def __init__(self, needed: int, free: int, cells: int) -> None:
        self.needed = needed
        self.free = free
        self.cells = cells
        super().__init__(
            f"could not find a kv cache slot: the batch needs {needed} cells, {free} of {cells} are free: "
            "call remove(sequence, 0) on a sequence that is finished, or init with a larger capacity"
        )

    def __reduce__(self) -> tuple[type[KVCacheFull], tuple[int, int, int]]:
        """Keep the three numbers through pickling; the default would pass the message alone."""
        return type(self), (self.needed, self.free, self.cells)


class NotSupported(KVCacheError):  # noqa: N818  (the interface's own name)
    """This kind of cache, or this state of it, cannot do what was asked. Nothing was changed."""


class NotReady(KVCacheError):  # noqa: N818
    """A call came before the one that it needs: init, start_forward or put."""
