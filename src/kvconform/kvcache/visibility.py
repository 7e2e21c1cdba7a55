"""Which positions a query may see: the only place that knows windows and chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

from kvconform.kvcache.config import END

Position = TypeVar("Position", int, torch.Tensor)


@dataclass(frozen=True)
class Visibility:
    """Which keys of its own sequence a query at position p sees. At most one of window and chunk is set.

    ======================  =====================================
    kind                    visible positions q
    ======================  =====================================
    causal                  0 <= q <= p
    sliding window W        p - W <= q <= p (W + 1 of them)
    chunks of C             floor(p / C) * C <= q <= p
    ======================  =====================================

    A query excepted from causality sees later positions too: all of them, or those of its own chunk.
    """

    window: int | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 0:
            raise ValueError(f"window is {self.window}, expected 0 or more: a window of W sees W + 1 positions")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}, expected 1 or more")

    def first(self, position: Position) -> Position:
        """The lowest position that a query sees."""
        if self.window is not None:
            return position - self.window if isinstance(position, torch.Tensor) else max(0, position - self.window)
        if self.chunk is not None:
            return position - position % self.chunk
        return position - position

    def last(self, position: torch.Tensor, excepted: torch.Tensor) -> torch.Tensor:
        """The highest position that each query sees, given which of them are excepted from causality."""
        highest = torch.full_like(position, END) if self.chunk is None else self.first(position) + self.chunk - 1
        return torch.where(excepted, highest, position)


def window_from_visible(visible: int) -> int:
    """The window of this package for a window that counts visible keys, the query's own included.

    transformers' `sliding_window = W` means W visible keys, p - W < q <= p; this package's W + 1, p - W <= q <= p.
    This function is the one place where the one becomes the other.

    Raises:
        ValueError: `visible` is below 1; a query that sees nothing has no attention.
    """
    if visible < 1:
        raise ValueError(f"{visible} visible keys, expected 1 or more")
    return visible - 1
