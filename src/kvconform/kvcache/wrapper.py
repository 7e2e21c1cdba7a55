"""Several caches as one, such as those of an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kvconform.kvcache.base import Cache
from kvconform.kvcache.config import END, CacheConfig
from kvconform.kvcache.errors import NotSupported


class WrapperCache(Cache):
    """Caches that take the same batches. The layer type, an index into them, says which one `put` and `get` mean."""

    def __init__(self, *caches: Cache) -> None:
        if not caches:
            raise ValueError("a wrapper of no caches: pass at least one")
        self.caches = caches
        self._type = 0

    @property
    def shares_sequences(self) -> bool:  # type: ignore[override]
        """Whether all of the caches can hold several sequences."""
        return all(cache.shares_sequences for cache in self.caches)

    def init(
        self,
        dtype: torch.dtype,
        max_sequences: int,
        capacity: int,
        max_batch: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Set up all caches, empty."""
        for cache in self.caches:
            cache.init(dtype, max_sequences, capacity, max_batch, device)

    def set_config(self, config: CacheConfig) -> None:
        """Give all caches the same configuration; call it on `caches` to give each its own."""
        for cache in self.caches:
            cache.set_config(config)

    def start_forward(
        self, positions: Sequence[int], sequences: Sequence[int], reserve: bool = False, *, inputs: Sequence[int] = ()
    ) -> None:
        """Begin a forward pass in all caches, or, where one refuses, in none. The layer type becomes 0."""
        started: list[Cache] = []
        try:
            for cache in self.caches:
                cache.start_forward(positions, sequences, reserve, inputs=inputs)
                started.append(cache)
        except BaseException:
            for cache in reversed(started):
                cache.cancel_forward()
            raise
        self._type = 0

    def cancel_forward(self) -> None:
        """Undo `start_forward` in all caches."""
        for cache in self.caches:
            cache.cancel_forward()

    def set_layer(self, layer: int) -> None:
        """Choose the layer, in all caches."""
        for cache in self.caches:
            cache.set_layer(layer)

    def set_layer_type(self, layer_type: int) -> None:
        """Choose the cache that `put` and `get` mean, by its index."""
        if not 0 <= layer_type < len(self.caches):
            raise ValueError(f"layer type is {layer_type}, expected 0 to {len(self.caches) - 1}: one for each cache")
        self._type = layer_type

    @property
    def underlying_cache(self) -> Cache:
        """The cache that `put` and `get` mean now."""
        return self.caches[self._type]

    def put(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store in the cache of the current layer type."""
        self.underlying_cache.put(key, value)

    def get(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """History and mask from the cache of the current layer type."""
        return self.underlying_cache.get()

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Copy in all caches, or, where one cannot, in none."""
        if not self.shares_sequences:
            names = ", ".join(type(cache).__name__ for cache in self.caches if not cache.shares_sequences)
            raise NotSupported(f"{names} holds one sequence: no prefix of {source} can be copied to {target}")
        for cache in self.caches:
            cache.copy_prefix(source, target, length)

    def can_resume(self, sequence: int, position: int) -> bool:
        """Whether all caches can."""
        return all(cache.can_resume(sequence, position) for cache in self.caches)

    def check_remove(self, sequence: int, begin: int, end: int = END) -> None:
        """Raise what `remove` of any of them would raise."""
        for cache in self.caches:
            cache.check_remove(sequence, begin, end)

    def remove(self, sequence: int, begin: int, end: int = END) -> None:
        """Remove in all caches, or, where one refuses, in none."""
        self.check_remove(sequence, begin, end)
        for cache in self.caches:
            cache.remove(sequence, begin, end)

    def close(self) -> None:
        """Free all caches."""
        for cache in self.caches:
            cache.close()

    def to(self, device: torch.device | str) -> WrapperCache:
        """Move all caches to `device`, in place."""
        for cache in self.caches:
            cache.to(device)
        return self
