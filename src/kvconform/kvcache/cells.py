"""Bookkeeping of cells: which position each holds, which sequences share it, which are free.

All work is vectorised: it costs what the batch and the live cells cost. `positions` and `members` are the truth and the
leaves of the pytree node; everything else is derived from them, lazily, so that rebuilding a cache reads no data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from kvconform.kvcache.config import Batch
from kvconform.kvcache.errors import KVCacheFull

Move = Callable[[torch.Tensor, torch.Tensor], None]
"""Copies stored keys and values from cells to cells: `move(source, target)`."""


@dataclass
class Placement:
    """What one `start_forward` changed, so that it can be undone."""

    start: int
    batch: Batch
    expired: dict[int, torch.Tensor]
    positions: torch.Tensor
    members: torch.Tensor


class Lineage:
    """Stands for cells to which others were only appended: two `Held` of one lineage begin alike."""


@dataclass(frozen=True)
class Held:
    """Cells of one sequence, ascending, with their positions.

    `ordered` tells that positions ascend with the cells, as they do unless a gap was filled: then a range of positions
    is a slice. It may be False although they do. `last` is the last cell, -1 of none.
    """

    cells: torch.Tensor
    positions: torch.Tensor
    ordered: bool
    last: int
    lineage: Lineage = field(default_factory=Lineage)

    @classmethod
    def of(cls, cells: torch.Tensor, positions: torch.Tensor) -> Held:
        """Look whether they are in order."""
        ordered = bool((positions[1:] >= positions[:-1]).all())
        return cls(cells, positions, ordered, int(cells[-1]) if cells.shape[0] else -1)

    def with_added(self, cells: torch.Tensor, positions: torch.Tensor, last: int, *, ascend: bool) -> Held:
        """These and others, which end with cell `last`. Mostly the others lie behind, and nothing needs sorting."""
        if int(cells[0]) > self.last:
            follows = self.last < 0 or bool(self.positions[-1] <= positions[0])
            held = torch.cat([self.cells, cells]), torch.cat([self.positions, positions])
            return Held(*held, self.ordered and follows and ascend, last, self.lineage)
        merged, order = torch.cat([self.cells, cells]).sort()
        return Held.of(merged, torch.cat([self.positions, positions])[order])

    def first(self, count: int) -> Held:
        """The first of them."""
        cells = self.cells[:count]
        return Held(cells, self.positions[:count], self.ordered, int(cells[-1]) if count else -1, self.lineage)

    def only(self, which: torch.Tensor) -> Held:
        """Some of them."""
        cells = self.cells[which]
        return Held(cells, self.positions[which], self.ordered, int(cells[-1]) if cells.shape[0] else -1)


@dataclass
class Cells:
    """Positions (cells,) and membership (max_sequences, cells) of all cells.

    A cell without members is free; its position means nothing.
    """

    positions: torch.Tensor
    members: torch.Tensor
    _held: dict[int, Held] = field(default_factory=dict, repr=False)
    _owners: torch.Tensor | None = field(default=None, repr=False)

    @classmethod
    def empty(cls, cells: int, max_sequences: int) -> Cells:
        """Nothing but free cells."""
        return cls(torch.zeros(cells, dtype=torch.int64), torch.zeros(max_sequences, cells, dtype=torch.bool))

    def __len__(self) -> int:
        return self.positions.shape[0]

    @property
    def owners(self) -> torch.Tensor:
        """How many sequences share each cell."""
        if self._owners is None:
            self._owners = self.members.sum(0, dtype=torch.int32)
        return self._owners

    def of(self, sequence: int) -> Held:
        """Cells and positions of a sequence."""
        held = self._held.get(sequence)
        if held is None:
            cells = self.members[sequence].nonzero().flatten()
            held = self._held[sequence] = Held.of(cells, self.positions[cells])
        return held

    def held(self, sequence: int) -> torch.Tensor:
        """Cells of a sequence, ascending."""
        return self.of(sequence).cells

    def positions_of(self, sequence: int) -> torch.Tensor:
        """Positions of a sequence, in the order of its cells."""
        return self.of(sequence).positions

    def live(self) -> int:
        """How many cells are not free."""
        return int(self.owners.count_nonzero())

    def span(self, batch: Batch) -> tuple[int, int]:
        """First cell, and one past the last, of all sequences in the batch."""
        held = [held for held in map(self.of, batch.rows) if held.last >= 0]
        return min(int(one.cells[0]) for one in held), max(one.last for one in held) + 1

    # -- changing who holds what ---------------------------------------------------------------------------------------

    def release(self, sequence: int, cells: torch.Tensor) -> None:
        """Take `sequence` out of cells that it holds."""
        held = self.of(sequence)
        self.owners[cells] -= 1
        self.members[sequence, cells] = False
        self._held[sequence] = held.only(self.members[sequence, held.cells])

    def share(self, sequence: int, cells: torch.Tensor) -> None:
        """Let `sequence` hold cells that it does not hold yet."""
        self.owners[cells] += 1
        self.members[sequence, cells] = True
        self._held.pop(sequence, None)

    def shift(self, sequence: int, cells: torch.Tensor, offset: int) -> None:
        """Change the positions of cells that `sequence` alone holds."""
        self.positions[cells] += offset
        self._held.pop(sequence, None)

    # -- placing a batch -----------------------------------------------------------------------------------------------

    def place(self, batch: Batch, expired: dict[int, torch.Tensor], move: Move) -> Placement:
        """Give the batch the first contiguous run of free cells, forgetting `expired` cells by sequence.

        Where no run is long enough, live cells are moved together first.

        Raises:
            KVCacheFull: fewer free cells than tokens. Nothing was changed.
        """
        owners = self._owners_without(expired)
        start = first_run(owners == 0, len(batch))
        if start is None:
            free = len(self) - int(owners.count_nonzero())
            if free < len(batch):
                raise KVCacheFull(len(batch), free, len(self))
            start, expired = self._defragment(owners, expired, move)
        return self._take(start, batch, expired)

    def undo(self, placement: Placement) -> None:
        """Put back what `place` changed. Cells moved together stay where they are, which changes no answer."""
        taken = slice(placement.start, placement.start + len(placement.batch))
        self.positions[taken] = placement.positions
        self.members[:, taken] = placement.members
        for sequence, cells in placement.expired.items():
            self.members[sequence, cells] = True
        self._forget_derived()

    def _owners_without(self, expired: dict[int, torch.Tensor]) -> torch.Tensor:
        if not expired:
            return self.owners
        owners = self.owners.clone()
        for cells in expired.values():
            owners[cells] -= 1
        return owners

    def _take(self, start: int, batch: Batch, expired: dict[int, torch.Tensor]) -> Placement:
        taken = slice(start, start + len(batch))
        placement = Placement(start, batch, expired, self.positions[taken].clone(), self.members[:, taken].clone())
        for sequence, cells in expired.items():
            self.release(sequence, cells)
        cells, positions = torch.arange(start, start + len(batch)), torch.tensor(batch.positions)
        held = {sequence: self.of(sequence) for sequence in batch.rows}
        self.owners[taken] += 1  # before the members change: they may be what the owners are derived from
        self.positions[taken] = positions
        self.members[torch.tensor(batch.sequences), cells] = True
        for sequence, rows in batch.rows.items():
            run = consecutive(rows)
            ascend = all(batch.positions[row] <= batch.positions[after] for row, after in pairwise(rows))
            self._held[sequence] = held[sequence].with_added(
                cells[run], positions[run], start + rows[-1], ascend=ascend
            )
        return placement

    def _defragment(
        self, owners: torch.Tensor, expired: dict[int, torch.Tensor], move: Move
    ) -> tuple[int, dict[int, torch.Tensor]]:
        """Move live cells to the front, keeping their order; return the first cell behind them and `expired`, moved.

        Cells about to be forgotten go behind those that stay and are not dropped yet, so that undoing the forward pass
        still finds their data.
        """
        keep, drop = (owners > 0).nonzero().flatten(), ((self.owners > 0) & (owners == 0)).nonzero().flatten()
        source = torch.cat([keep, drop])
        target = torch.arange(len(source))
        moved = source != target
        move(source[moved], target[moved])
        self.positions[target] = self.positions[source]
        members = self.members[:, source]
        self.members.zero_()
        self.members[:, target] = members
        self._forget_derived()
        where = torch.zeros(len(self), dtype=torch.int64)
        where[source] = target
        return len(keep), {sequence: where[cells] for sequence, cells in expired.items()}

    def _forget_derived(self) -> None:
        self._held.clear()
        self._owners = None


def first_run(free: torch.Tensor, length: int) -> int | None:
    """Start of the first run of at least `length` free cells, or None."""
    # Where free cells begin or end: few places, however many cells there are.
    edges = (free[1:] != free[:-1]).nonzero().flatten() + 1
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), edges, torch.tensor([free.shape[0]])])
    begin = 0 if len(free) and bool(free[0]) else 1
    starts, ends = bounds[begin::2], bounds[begin + 1 :: 2]
    long_enough = (ends - starts[: len(ends)] >= length).nonzero()
    return int(starts[long_enough[0, 0]]) if len(long_enough) else None


def consecutive(rows: list[int]) -> slice | torch.Tensor:
    """Ascending indices as a slice where they follow each other, which is faster and makes views."""
    if rows[-1] - rows[0] == len(rows) - 1:  # ascending, as `Batch.rows` has them
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows)
