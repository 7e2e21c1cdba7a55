"""Optimisations that a backend may want, and the shape of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

END = 2**31 - 1
"""The end that `remove` takes for "everything from begin on"."""


@dataclass(frozen=True)
class CacheConfig:
    """How what a cache returns is padded and laid out. The default changes nothing.

    Attributes:
        cache_padding: the history starts and ends at a multiple of this many cells.
        mask_batch_padding: the mask has a multiple of this many rows; rows beyond the batch are -inf.
        mask_dtype: floating dtype of the mask.
        permuted_values: values are kept and returned as (kv_heads, value_dim, history) instead of
            (history, kv_heads, value_dim), ready to be the right side of a matrix product.
    """

    cache_padding: int = 1
    mask_batch_padding: int = 1
    mask_dtype: torch.dtype = torch.float32
    permuted_values: bool = False

    def __post_init__(self) -> None:
        for name in ("cache_padding", "mask_batch_padding"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more: 1 means no padding")
        if not self.mask_dtype.is_floating_point:
            raise ValueError(f"mask_dtype is {self.mask_dtype}, expected a floating dtype: a mask holds 0 and -inf")

    def to_json(self) -> dict[str, Any]:
        """Plain data, dtype by name."""
        return {
            "cache_padding": self.cache_padding,
            "mask_batch_padding": self.mask_batch_padding,
            "mask_dtype": dtype_name(self.mask_dtype),
            "permuted_values": self.permuted_values,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CacheConfig:
        """The opposite of `to_json`."""
        return cls(**{**data, "mask_dtype": dtype_of(data["mask_dtype"])})


@dataclass(frozen=True)
class Limits:
    """The sizes that `init` was given: sequences, cells a sequence, tokens a batch."""

    max_sequences: int
    capacity: int
    max_batch: int

    def __post_init__(self) -> None:
        for name, value in self.to_json().items():
            if value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more")

    def to_json(self) -> dict[str, int]:
        """Plain data."""
        return {"max_sequences": self.max_sequences, "capacity": self.capacity, "max_batch": self.max_batch}

    def check_sequence(self, sequence: int) -> None:
        """Refuse a sequence that `init` left no room for."""
        if not 0 <= sequence < self.max_sequences:
            raise ValueError(
                f"sequence is {sequence}, expected 0 to {self.max_sequences - 1}: init with a larger max_sequences"
            )


@dataclass(frozen=True)
class Batch:
    """One position and one sequence for each token of a forward pass."""

    positions: tuple[int, ...]
    sequences: tuple[int, ...]

    @classmethod
    def of(cls, positions: Sequence[int], sequences: Sequence[int], limits: Limits) -> Batch:
        """Check what `start_forward` was given.

        Raises:
            ValueError: no tokens, too many, lists of two lengths, a negative position or an unknown sequence.
        """
        batch = cls(tuple(int(p) for p in positions), tuple(int(s) for s in sequences))
        if len(batch.positions) != len(batch.sequences):
            raise ValueError(
                f"{len(batch.positions)} positions and {len(batch.sequences)} sequences: pass one of each a token"
            )
        if not 0 < len(batch) <= limits.max_batch:
            raise ValueError(
                f"the batch has {len(batch)} tokens, expected 1 to {limits.max_batch}: split it, or init with a larger "
                "max_batch"
            )
        if min(batch.positions) < 0 or max(batch.positions) >= END:
            raise ValueError(
                f"positions go from {min(batch.positions)} to {max(batch.positions)}, expected 0 to {END - 1}"
            )
        for sequence in set(batch.sequences):
            limits.check_sequence(sequence)
        return batch

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def rows(self) -> dict[int, list[int]]:
        """Indices into the batch, by sequence."""
        rows: dict[int, list[int]] = {}
        for row, sequence in enumerate(self.sequences):
            rows.setdefault(sequence, []).append(row)
        return rows

    def lowest(self) -> dict[int, int]:
        """The lowest position of each sequence in the batch."""
        return {sequence: min(self.positions[row] for row in rows) for sequence, rows in self.rows.items()}


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """`torch.float32` for `float32`.

    Raises:
        ValueError: torch has no such dtype.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype of torch {torch.__version__}")  # noqa: TRY004  (bad data, not a bad call)
    return dtype
