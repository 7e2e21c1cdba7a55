"""How far a program's answer is from the model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

__all__ = ["Difference", "difference", "tolerance_of"]

_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Difference:
    """The largest absolute difference of one step.

    Attributes:
        step: which one.
        logits: of the logits.
        cache: of the tensors in the cache; infinite where structure or shapes differ.
        tolerance: what is accepted for this dtype.
    """

    step: str
    logits: float
    cache: float
    tolerance: float

    @property
    def fine(self) -> bool:
        """Whether both are accepted. A NaN is not."""
        return self.logits <= self.tolerance and self.cache <= self.tolerance

    def __str__(self) -> str:
        found = f"logits differ by {self.logits:.3g}, the cache by {self.cache:.3g}"
        return f"{self.step}: {found} (accepted: {self.tolerance:g})"


def tolerance_of(tensor: torch.Tensor) -> float:
    """The largest absolute difference that the order of additions explains, for a dtype."""
    return _TOLERANCES.get(tensor.dtype, 0.0)


def difference(step: str, found: tuple[torch.Tensor, Any], expected: tuple[torch.Tensor, Any]) -> Difference:
    """Compare logits and cache."""
    logits = _largest(found[0], expected[0])
    ours, spec = py_pytree.tree_flatten(found[1])
    theirs, spec_expected = py_pytree.tree_flatten(expected[1])
    if spec != spec_expected or len(ours) != len(theirs):
        return Difference(step, logits, float("inf"), tolerance_of(expected[0]))
    pairs = zip(ours, theirs, strict=True)
    cache = max((_largest(a, b) for a, b in pairs), default=0.0)
    return Difference(step, logits, cache, tolerance_of(expected[0]))


def _largest(found: Any, expected: Any) -> float:
    if not isinstance(expected, torch.Tensor):
        return 0.0 if found == expected else float("inf")
    if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
        return float("inf")
    if not found.numel():
        return 0.0
    # Where both are the same infinity their difference is no number.
    apart = torch.where(found == expected, 0.0, (found.double() - expected.double()).abs())
    return float(apart.max())
