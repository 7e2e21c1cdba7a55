"""Masks, built by writing only what is visible.

A mask of 512 queries over 131,072 cells has 67 million entries, nearly all of them -inf when many sequences share the
cache. Making and filling such a tensor takes longer than everything else, so one buffer of -inf is kept, visible
entries are written into it, and before the next mask exactly those are taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from kvconform.kvcache.cells import Cells, Held, consecutive
from kvconform.kvcache.config import Batch
from kvconform.kvcache.visibility import Visibility


@dataclass(frozen=True)
class Asked:
    """Whose mask is asked for: the queries, the rule, and which queries are excepted from causality."""

    batch: Batch
    rule: Visibility
    excepted: frozenset[int] = frozenset()

    def among_themselves(self) -> torch.Tensor:
        """Which tokens of the batch see which: (batch, batch)."""
        sequences = torch.tensor(self.batch.sequences)
        every = list(range(len(self.batch)))
        return self.visible(every, torch.tensor(self.batch.positions)) & (sequences[:, None] == sequences)

    def visible(self, rows: list[int], positions: torch.Tensor) -> torch.Tensor:
        """Which keys of their sequence, at `positions`, some queries see: (rows, positions)."""
        queries = torch.tensor([self.batch.positions[row] for row in rows])
        last = self.rule.last(queries, torch.tensor([row in self.excepted for row in rows]))
        return (positions >= self.rule.first(queries)[:, None]) & (positions <= last[:, None])

    def parts(self, rows: list[int], past: Held) -> list[tuple[slice, bool]]:
        """A sequence's past cut into what all of its queries see (True) and what some may see (False).

        What none sees is left out. Nearly all is the first kind, and no pair of it needs to be compared.
        """
        count = len(past.cells)
        if not count or not past.ordered or not self.excepted.isdisjoint(rows):
            return [(slice(0, count), False)]
        queries = [self.batch.positions[row] for row in rows]
        low, high = min(queries), max(queries)
        if past.positions[0] >= self.rule.first(high) and past.positions[-1] <= low:
            return [(slice(0, count), True)]
        edges = torch.tensor([self.rule.first(low), self.rule.first(high), low + 1, high + 1])
        begin, all_from, all_to, end = torch.searchsorted(past.positions, edges).tolist()
        if all_from >= all_to:
            return [(slice(begin, end), False)]
        return [(slice(begin, all_from), False), (slice(all_from, all_to), True), (slice(all_to, end), False)]


@dataclass(frozen=True)
class Block:
    """Rows and columns of a mask, and which pairs of them are visible (None: all)."""

    rows: slice | torch.Tensor
    columns: slice | torch.Tensor
    visible: torch.Tensor | None = None

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
    """The mask of the current batch, in memory that is used again for the next.

    Args:
        dtype: of the mask.
        most: entries that a mask has at most; no more than these are allocated in advance.
    """

    def __init__(self, dtype: torch.dtype, most: int = 0) -> None:
        self.dtype = dtype
        self._most = most
        self._buffer = torch.empty(0, dtype=dtype)
        self._mask = self._buffer.view(0, 0)
        self._unseen = torch.full((1, 1), -torch.inf, dtype=dtype)
        self._seen = torch.zeros(1, 1, dtype=dtype)
        self._written: list[tuple[slice | torch.Tensor, slice | torch.Tensor]] = []

    def blank(self, rows: int, columns: int) -> torch.Tensor:
        """A mask in which nothing is visible: (rows, columns), all -inf."""
        for where in self._written:
            Block(*where).write(self._mask, self._unseen)
        self._written.clear()
        if rows * columns > self._buffer.numel():
            # Histories grow a little with every pass; the buffer grows in leaps.
            entries = max(rows * columns, min(2 * self._buffer.numel(), self._most))
            self._buffer = torch.full((entries,), -torch.inf, dtype=self.dtype)
        self._mask = self._buffer[: rows * columns].view(rows, columns)
        return self._mask

    def build(self, cells: Cells, asked: Asked, start: int, history: tuple[int, int], rows: int) -> torch.Tensor:
        """The mask (rows, history) of a batch stored from cell `start` on: 0 where a query sees a cell, -inf elsewhere.

        Rows beyond the batch are -inf too.
        """
        mask = self.blank(rows, history[1] - history[0])
        for block in blocks(cells, asked, start, history[0]):
            self._written.append((block.rows, block.columns))
            values = self._seen if block.visible is None else torch.where(block.visible, self._seen, self._unseen)
            block.write(mask, values)
        return mask


def blocks(cells: Cells, asked: Asked, start: int, first_cell: int) -> Iterator[Block]:
    """What the batch, stored from cell `start` on, sees: itself as one block, and each sequence's past as a few."""
    batch = slice(start, start + len(asked.batch))
    own = slice(batch.start - first_cell, batch.stop - first_cell)
    yield Block(slice(0, len(asked.batch)), own, asked.among_themselves())
    for sequence, rows in asked.batch.rows.items():
        past, run = _outside(cells.of(sequence), batch, len(rows)), consecutive(rows)
        for part, all_visible in asked.parts(rows, past):
            if all_visible:
                yield from (Block(run, columns) for columns in _pieces(past.cells[part] - first_cell))
            elif part.start < part.stop:
                yield Block(run, _columns(past.cells[part] - first_cell), asked.visible(rows, past.positions[part]))


def _outside(held: Held, batch: slice, rows: int) -> Held:
    """Without the cells of the batch: mostly they are the last ones."""
    if int(held.cells[-1]) < batch.stop:
        return held.only(slice(0, len(held.cells) - rows))
    return held.only((held.cells < batch.start) | (held.cells >= batch.stop))


def _pieces(columns: torch.Tensor) -> Iterator[slice | torch.Tensor]:
    """Ascending columns as a leading run, which is filled fastest (a prompt, mostly), and the others."""
    first = int(columns[0])
    run = int(torch.searchsorted(columns - torch.arange(len(columns)), first, right=True))
    yield slice(first, first + run)
    if run < len(columns):
        yield columns[run:]


def _columns(columns: torch.Tensor) -> slice | torch.Tensor:
    """Ascending columns as a slice where they follow each other."""
    first, last = int(columns[0]), int(columns[-1])
    return slice(first, last + 1) if last - first + 1 == len(columns) else columns
