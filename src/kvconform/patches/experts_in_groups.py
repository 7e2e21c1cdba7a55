"""Mixtures of experts that multiply the tokens of each expert as a group, while they are traced.

From transformers 5.0 on the experts of most models are one grouped product, `torch._grouped_mm`. Up to torch 2.14 that
takes bfloat16 alone where something is traced, though it runs in float32; from 5.3 on transformers asks first, and has
another product for the rest. Here, in other types than bfloat16, each token is multiplied with a copy of the weights of
its own expert, as transformers' `batched_mm` does. Nothing changes in bfloat16, or in eager mode.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_EXPERTS = "transformers.integrations.moe"
_PRODUCT = "_grouped_linear"
_ASKS = "_can_use_grouped_mm"


def _probe() -> Answer:
    if importlib.util.find_spec("transformers") is None:
        return not_applicable("transformers is not installed")
    if importlib.util.find_spec(_EXPERTS) is None or not hasattr(torch, "_grouped_mm"):
        return not_applicable("this release has no grouped product of experts")
    experts = importlib.import_module(_EXPERTS)
    if hasattr(experts, _ASKS) or _PRODUCT not in vars(experts):
        return not_needed("this release asks whether torch has a grouped product for the type, and has another one")
    if _takes_float32():
        return not_needed("this torch traces a grouped product of any type")
    return needed("the grouped product of this torch takes bfloat16 alone where it is traced")


def _takes_float32() -> bool:
    with torch.no_grad(), FakeTensorMode():
        try:
            torch._grouped_mm(torch.ones(4, 8), torch.ones(2, 8, 16), offs=torch.ones(2, dtype=torch.int32))
        except RuntimeError:
            return False
    return True


def _row_by_row(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `_grouped_linear`: rows that are sorted by expert, and where the rows of each expert end."""

    @functools.wraps(original)
    def linear(
        input: torch.Tensor,  # noqa: A002 - transformers' name
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        offs: torch.Tensor | None = None,
        is_transposed: bool = False,
    ) -> Any:
        if offs is None or input.dtype == torch.bfloat16 or not is_traced(input):
            return original(input, weight, bias, offs, is_transposed)
        # How many experts end at or before a row: shape (rows,).
        expert = (torch.arange(input.shape[0], device=input.device).unsqueeze(1) >= offs).sum(1)
        own = weight[expert] if is_transposed else weight[expert].transpose(-2, -1)
        found = torch.bmm(input.unsqueeze(1), own).squeeze(1)
        return found if bias is None else found + bias

    return linear


def _replacements() -> tuple[Replacement, ...]:
    return (Replacement(importlib.import_module(_EXPERTS), _PRODUCT, _row_by_row),)


PATCH = Patch(
    name="experts-in-groups",
    replaces="_grouped_linear of transformers.integrations.moe (5.0 to 5.2), when traced in other types than bfloat16",
    why="the grouped product of experts takes bfloat16 alone where it is traced (torch up to 2.14)",
    page="docs/known-failures/grouped-mm.md",
    probe=_probe,
    replacements=_replacements,
)
