"""Masks, built by writing only what is visible.

A mask of 512 queries over 131,072 cells has 67 million entries, nearly all of them -inf when many sequences share the
cache. Making and filling such a tensor takes longer than everything else, so one buffer of -inf is kept, visible
entries are written into it, and before the next mask those are taken back that it does not show again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
        count = past.cells.shape[0]
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
    """Rows and cells of a mask."""

    rows: slice | torch.Tensor
    cells: slice | torch.Tensor

    def write(self, mask: torch.Tensor, values: torch.Tensor) -> None:
        """Set all pairs to values (rows, cells) or (1, 1), by the fastest way that their layout allows."""
        if isinstance(self.rows, torch.Tensor):
            cells = torch.arange(mask.shape[1])[self.cells]
            mask[self.rows[:, None], cells] = values
        elif isinstance(self.cells, slice):
            mask[self.rows, self.cells] = values
        elif values.numel() == 1:
            mask[self.rows].index_fill_(1, self.cells, values[0, 0])
        else:
            mask[self.rows].index_copy_(1, self.cells, values)


@dataclass(frozen=True)
class Shown:
    """What of a sequence's past all of its queries see: `held.cells[begin:end]`, in these rows."""

    rows: list[int]
    held: Held
    begin: int
    end: int

    def follows(self, earlier: Shown | None) -> bool:
        """Whether an earlier mask showed the same past, or less of it, to the same rows."""
        return (
            earlier is not None
            and earlier.held.lineage is self.held.lineage
            and earlier.rows == self.rows
            and earlier.begin <= self.begin <= earlier.end <= self.end
        )

    def blocks(self, begin: int, end: int) -> Iterator[Block]:
        """Blocks of `held.cells[begin:end]`."""
        if begin < end:
            run = consecutive(self.rows)
            yield from (Block(run, cells) for cells in _pieces(self.held.cells[begin:end]))


class MaskBuffer:
    """The mask of the current batch, in memory that is used again for the next.

    Its columns are cells, and a mask is a view of some of them: the next pass of the same sequences differs by a batch,
    and only that is written.

    Args:
        dtype: of the mask.
        rows: how many a mask has at most.
        cells: how many the cache has.
    """

    def __init__(self, dtype: torch.dtype, rows: int, cells: int) -> None:
        self.dtype = dtype
        self._most = (rows, cells)
        self._buffer = torch.empty(0, 0, dtype=dtype)
        self._unseen = torch.full((1, 1), -torch.inf, dtype=dtype)
        self._seen = torch.zeros(1, 1, dtype=dtype)
        self._written: list[Block] = []
        self._shown: dict[int, Shown] = {}

    def blank(self, rows: int, begin: int, end: int) -> torch.Tensor:
        """A mask in which nothing is visible: (rows, end - begin), all -inf."""
        self._room(rows, end)
        self._take_back(set())
        return self._buffer[:rows, begin:end]

    def build(self, cells: Cells, asked: Asked, start: int, history: tuple[int, int], rows: int) -> torch.Tensor:
        """The mask (rows, history) of a batch stored from cell `start` on: 0 where a query sees a cell, -inf elsewhere.

        Rows beyond the batch are -inf too.
        """
        self._room(rows, history[1])
        shown, partly = seen(cells, asked, start)
        self._take_back({sequence for sequence, now in shown.items() if now.follows(self._shown.get(sequence))})
        for sequence, now in shown.items():
            self._show(now, self._shown.get(sequence))
        self._shown = shown
        for block, visible in partly:
            self._written.append(block)
            block.write(self._buffer, torch.where(visible, self._seen, self._unseen))
        return self._buffer[:rows, slice(*history)]

    def _show(self, now: Shown, before: Shown | None) -> None:
        """Write what is visible now and was not before."""
        if before is None:
            before = replace(now, end=now.begin)
        for block in now.blocks(before.begin, now.begin):
            block.write(self._buffer, self._unseen)
        for block in now.blocks(before.end, now.end):
            block.write(self._buffer, self._seen)

    def _take_back(self, kept: set[int]) -> None:
        """Hide what the last mask showed, except to these sequences."""
        for block in self._written:
            block.write(self._buffer, self._unseen)
        self._written.clear()
        for sequence in self._shown.keys() - kept:
            gone = self._shown.pop(sequence)
            for block in gone.blocks(gone.begin, gone.end):
                block.write(self._buffer, self._unseen)

    def _room(self, rows: int, end: int) -> None:
        """Make the buffer as large as a mask needs; it grows in leaps, since histories grow a little every time."""
        had = self._buffer.shape
        if rows <= had[0] and end <= had[1]:
            return
        size = [
            max(need, min(2 * have, most)) if need > have else have
            for need, have, most in zip((rows, end), had, self._most, strict=True)
        ]
        self._buffer = torch.full(size, -torch.inf, dtype=self.dtype)
        self._written.clear()
        self._shown.clear()


def seen(cells: Cells, asked: Asked, start: int) -> tuple[dict[int, Shown], list[tuple[Block, torch.Tensor]]]:
    """What the batch, stored from cell `start` on, sees: of a past what all queries of its sequence see, and the rest.

    The rest are blocks with their visible pairs: the batch itself, and the edges of windows and chunks.
    """
    batch = slice(start, start + len(asked.batch))
    shown: dict[int, Shown] = {}
    partly = [(Block(slice(0, len(asked.batch)), batch), asked.among_themselves())]
    for sequence, rows in asked.batch.rows.items():
        past = _outside(cells.of(sequence), batch, len(rows))
        for part, all_visible in asked.parts(rows, past):
            if all_visible:
                shown[sequence] = Shown(rows, past, part.start, part.stop)
            elif part.start < part.stop:
                visible = asked.visible(rows, past.positions[part])
                partly.append((Block(consecutive(rows), _as_slice(past.cells[part])), visible))
    return shown, partly


def _outside(held: Held, batch: slice, rows: int) -> Held:
    """Without the cells of the batch: mostly they are the last ones."""
    if held.last < batch.stop:
        return held.first(held.cells.shape[0] - rows)
    return held.only((held.cells < batch.start) | (held.cells >= batch.stop))


def _pieces(cells: torch.Tensor) -> Iterator[slice | torch.Tensor]:
    """Ascending cells as a leading run, which is filled fastest (a prompt, mostly), and the others."""
    whole = _as_slice(cells)
    if isinstance(whole, slice):
        yield whole
        return
    first = int(cells[0])
    run = int(torch.searchsorted(cells - torch.arange(len(cells)), first, right=True))
    yield slice(first, first + run)
    yield cells[run:]


def _as_slice(cells: torch.Tensor) -> slice | torch.Tensor:
    """Ascending cells as a slice where they follow each other."""
    first, last = int(cells[0]), int(cells[-1])
    return slice(first, last + 1) if last - first + 1 == cells.shape[0] else cells
