"""One example cache: what it is called, how it is built, and what it needs of a release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from kvconform.checks import builders
from kvconform.checks.needs import Need


@dataclass(frozen=True)
class Example:
    """One example cache: its name in ids, a line about it, how to build it, the length it is usually built at."""

    name: str
    about: str
    builder: builders.Builder
    length: int = 5
    needs: tuple[Need, ...] = ()
    dtype: str = "float32"
    grows: bool = True
    """Whether its key tensors are longer at another length (dynamic shapes can be asked for)."""
    longest: int = 1024
    """The longest cache that one exported program can be asked to take; less for a cache below its window."""

    def build(self, batch: int = 2, length: int | None = None, device: str = "cpu") -> Any:
        """Build it; the tensors' elements are the same for the same arguments."""
        return self.builder(batch, self.length if length is None else length, getattr(torch, self.dtype), device)

    @property
    def where(self) -> str:
        """What a message says about the cache."""
        return f"{self.name}: {self.about}"
