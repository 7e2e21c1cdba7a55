"""Masks, built by writing only what is visible.

A mask of 512 queries over 131,072 cells has 67 million entries, nearly all of them -inf when many sequences share the
cache. Making and filling such a tensor takes longer than everything else, so one buffer of -inf is kept, visible
entries are written into it, and before the next mask exactly those are taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from kvconform.kvcache.cells import Cells
from kvconform.kvcache.config import Batch
from kvconform.kvcache.visibility import Visibility

_ENTRIES_AT_ONCE = 4_194_304
"""Entries to compute at once: bounds the memory of temporaries when one sequence fills the history."""


@dataclass(frozen=True)
class Asked:
    """Whose mask is asked for: the queries, the rule, and which queries are excepted from causality."""

    batch: Batch
    rule: Visibility
    excepted: frozenset[int] = frozenset()

    def visible(self, rows: list[int], positions: torch.Tensor) -> torch.Tensor:
        """Which keys of their sequence, at `positions`, some queries see: (rows, positions)."""
        queries = torch.tensor([self.batch.positions[row] for row in rows])
        last = self.rule.last(queries, torch.tensor([row in self.excepted for row in rows]))
        return (positions >= self.rule.first(queries)[:, None]) & (positions <= last[:, None])


@dataclass(frozen=True)
class Block:
    """Queries of one sequence against its cells: rows and columns of a mask, and which pairs are visible."""

    rows: slice | torch.Tensor
    columns: slice | torch.Tensor
    visible: torch.Tensor

    def write(self, mask: torch.Tensor, values: torch.Tensor) -> None:
        """Set all pairs to values (rows, columns) or (1, 1), by the fastest way that their layout allows."""
        if isinstance(self.rows, torch.Tensor):
            columns = torch.arange(mask.shape[1])[self.columns]
            mask[self.rows[:, None], columns] = values
        elif isinstance(self.columns, slice):
            mask[self.rows, self.columns] = values
        elif values.numel() == 1:
            mask[self.rows].index_fill_(1, self.columns, values[0, 0])
        else:
            mask[self.rows].index_copy_(1, self.columns, values)


class MaskBuffer:
    """The mask of the current batch, in memory that is used again for the next."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._buffer = torch.empty(0, dtype=dtype)
        self._mask = self._buffer.view(0, 0)
        self._nothing = torch.full((1, 1), -torch.inf, dtype=dtype)
        self._written: list[tuple[slice | torch.Tensor, slice | torch.Tensor]] = []

    def blank(self, rows: int, columns: int) -> torch.Tensor:
        """A mask in which nothing is visible: (rows, columns), all -inf."""
        for where in self._written:
            Block(*where, self._mask).write(self._mask, self._nothing)
        self._written.clear()
        if rows * columns > self._buffer.numel():
            self._buffer = torch.full((rows * columns,), -torch.inf, dtype=self.dtype)
        self._mask = self._buffer[: rows * columns].view(rows, columns)
        return self._mask

    def build(self, cells: Cells, asked: Asked, history: tuple[int, int], rows: int) -> torch.Tensor:
        """The mask (rows, history): 0 where a query sees a cell, -inf elsewhere, in rows beyond the batch too."""
        mask = self.blank(rows, history[1] - history[0])
        for block in blocks(cells, asked, history[0]):
            self._written.append((block.rows, block.columns))
            block.write(mask, _values(block.visible, mask))
        return mask


def blocks(cells: Cells, asked: Asked, first_cell: int) -> Iterator[Block]:
    """What the batch sees, as one block for each of its sequences (several where one would be too large)."""
    for sequence, rows in asked.batch.rows().items():
        held = cells.held(sequence)
        positions, columns = cells.positions[held], _columns(held - first_cell)
        step = max(1, _ENTRIES_AT_ONCE // len(held))
        for some in (rows[at : at + step] for at in range(0, len(rows), step)):
            yield Block(_run(some), columns, asked.visible(some, positions))


def _values(visible: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros((), dtype=mask.dtype).masked_fill(~visible, -torch.inf)


def _run(rows: list[int]) -> slice | torch.Tensor:
    """Rows as a slice where they follow each other."""
    if all(after == before + 1 for before, after in pairwise(rows)):
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows)


def _columns(columns: torch.Tensor) -> slice | torch.Tensor:
    """Ascending columns as a slice where they follow each other."""
    first, last = int(columns[0]), int(columns[-1])
    return slice(first, last + 1) if last - first + 1 == len(columns) else columns
