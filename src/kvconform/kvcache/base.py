"""The interface that all caches of this package share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch

from kvconform.kvcache.config import END, CacheConfig


class Cache(ABC):
    """A KV cache that knows positions, sequences and masks.

    A forward pass goes: `start_forward` once; then, for each layer, `set_layer`, `put`, `get` and attention. Tensors of
    keys and values have the batch (or the history) first: (batch, kv_heads, dim). A mask is (batch, history), added to
    scores. What `get` returns are views: the next `start_forward` may overwrite them.
    """

    shares_sequences: ClassVar[bool] = True
    """Whether several sequences can live in the cache, so that one can take a prefix of another."""

    @abstractmethod
    def init(
        self,
        dtype: torch.dtype,
        max_sequences: int,
        capacity: int,
        max_batch: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Set up an empty cache; whatever it held is dropped.

        Args:
            dtype: how keys and values are stored; `put` converts.
            max_sequences: how many sequences live in the cache at once; they are numbered 0 to max_sequences - 1.
            capacity: tokens to hold, a sequence.
            max_batch: tokens that one batch has at most, over all sequences.
            device: where keys, values and masks live. Bookkeeping stays on the CPU.
        """

    @abstractmethod
    def set_config(self, config: CacheConfig) -> None:
        """Choose padding and layout, before anything is stored.

        Raises:
            NotSupported: something is stored already.
        """

    @abstractmethod
    def start_forward(
        self, positions: Sequence[int], sequences: Sequence[int], reserve: bool = False, *, inputs: Sequence[int] = ()
    ) -> None:
        """Begin a forward pass: find room for its tokens and build its mask.

        Args:
            positions: position of each token of the batch, within its sequence.
            sequences: sequence of each token of the batch.
            reserve: measure the worst case instead: `put` and `get` take and return tensors of the largest shapes there
                can be, memory is allocated, nothing is stored or forgotten.
            inputs: indices into the batch of tokens that carry encoder input (an image, a sound).

        Raises:
            KVCacheFull: no room. Nothing was changed.
            ValueError: the batch makes no sense: see the message.
        """

    @abstractmethod
    def cancel_forward(self) -> None:
        """Undo `start_forward` before the first `put`: the cache holds what it held before."""

    @abstractmethod
    def set_layer(self, layer: int) -> None:
        """Choose the layer that `put` and `get` mean."""

    @abstractmethod
    def put(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store keys (batch, kv_heads, key_dim) and values (batch, kv_heads, value_dim) of the batch in this layer."""

    @abstractmethod
    def get(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Keys, values and mask of the history of this layer; the mask is None where all is visible."""

    @abstractmethod
    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Make `target` hold positions [0, length) of `source`, sharing the storage, and nothing else.

        Raises:
            NotSupported: this cache holds one sequence only.
        """

    @abstractmethod
    def can_resume(self, sequence: int, position: int) -> bool:
        """Whether the next token of `sequence` can be the one at `position`: all that it would see is still held."""

    @abstractmethod
    def check_remove(self, sequence: int, begin: int, end: int = END) -> None:
        """Raise what `remove` would raise, and change nothing."""

    @abstractmethod
    def remove(self, sequence: int, begin: int, end: int = END) -> None:
        """Take positions [begin, end) out of `sequence`; later positions move down to close the gap.

        Raises:
            NotSupported: later tokens would have to move and there is no shift function, or they are shared with
                another sequence. Nothing was changed; `remove(sequence, 0)` always works.
        """

    @abstractmethod
    def close(self) -> None:
        """Free everything. Only `init` and `set_config` may follow."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Cache:
        """Move keys, values and the current forward pass to `device`, in place."""
