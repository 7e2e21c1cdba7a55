"""One forward pass: where its tokens go, what they may see."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kvconform.kvcache.config import Batch


@dataclass
class Forward:
    """The five tensors of a forward pass, and what the CPU knows about them.

    Attributes:
        locations: cells of the batch (batch,).
        history: cells that `get` returns, consecutive (history,).
        mask: 0 or -inf (batch, padded; history).
        positions: positions of the batch (batch,), on the CPU.
        sequences: sequences of the batch (batch,), on the CPU.
        span: first cell of the history and one past the last; None in a cache rebuilt from leaves, where it must be
            read from the data, which a graph cannot do.
        reserve: the pass measures the worst case and stores nothing.
    """

    locations: torch.Tensor
    history: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    sequences: torch.Tensor
    span: tuple[int, int] | None = None
    reserve: bool = False

    @classmethod
    def none(cls, device: torch.device | str = "cpu") -> Forward:
        """No forward pass: the same tensors, empty, so that the structure of a cache stays the same."""
        locations, history = (torch.empty(0, dtype=torch.int64, device=device) for _ in range(2))
        positions, sequences = (torch.empty(0, dtype=torch.int64) for _ in range(2))
        return cls(locations, history, torch.empty(0, 0, device=device), positions, sequences)

    @classmethod
    def of(cls, batch: Batch, start: int, span: tuple[int, int], mask: torch.Tensor, *, reserve: bool) -> Forward:
        """A pass whose batch starts at cell `start` and sees cells `span`, on the device of the mask."""
        device = mask.device
        return cls(
            locations=torch.arange(start, start + len(batch), device=device),
            history=torch.arange(*span, device=device),
            mask=mask,
            positions=torch.tensor(batch.positions),
            sequences=torch.tensor(batch.sequences),
            span=span,
            reserve=reserve,
        )

    @property
    def traced(self) -> bool:
        """Whether these tensors stand for others: a graph is being made, and no value can be read."""
        return torch.compiler.is_compiling() or type(self.history) is not torch.Tensor

    def batch(self) -> Batch:
        """The batch again, from the tensors."""
        return Batch(tuple(self.positions.tolist()), tuple(self.sequences.tolist()))

    def cells(self) -> tuple[int, int]:
        """The span, read from the history where it is not known."""
        if self.span is None:
            self.span = (int(self.history[0]), int(self.history[-1]) + 1)
        return self.span

    def with_own_mask(self) -> Forward:
        """This pass, from now on with a mask that lies in one piece: a graph would remember the rows' distance."""
        self.mask = self.mask.contiguous()
        return self

    def to(self, device: torch.device) -> None:
        """Move what attention and storage use."""
        self.locations, self.history, self.mask = (t.to(device) for t in (self.locations, self.history, self.mask))
