"""Mixtures of experts without a loop over data while they are traced: every expert sees every token.

A block of experts runs each expert on the tokens that chose it. transformers 4.53 to 4.57 loop over those experts that
some token chose (`nonzero`), and every release cuts the tokens of an expert out with `torch.where(mask)`. How many
there are is data, which torch.export does not follow.

The loop itself stays the release's own. Here three functions that it calls mean something else while it is traced:
`nonzero` gives every expert, `torch.where(mask)` gives every token, and `index_add_` adds zero for a token that had
not chosen the expert. The sum is the same, in the same order of experts. It costs as many products as there are
experts, whatever was chosen. Dynamo (a strict export, torch.compile) does not follow such a change of functions; there
the loop runs as it is.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from kvconform.patches.of_models import in_loaded_modules, model_classes
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_TELLS = {"index_add_", "where", "one_hot"}
"""What a function calls that loops over experts."""


def _probe() -> Answer:
    if importlib.util.find_spec("transformers") is None:
        return not_applicable("transformers is not installed")
    if _follows_data():
        return not_needed("this torch follows a loop over what a tensor holds")
    return needed("models of experts loop over those that were chosen, which is data, and no torch.export follows it")


def _follows_data() -> bool:
    """Whether a fake tensor, which torch.export traces with, can be looped over by what it holds."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        try:
            return len(list(torch.ones(2).nonzero())) == 2  # noqa: PLR2004 (two ones)
        except Exception:  # noqa: BLE001 (whatever torch raises here, its answer is no)
            return False


class _EveryExpert(TorchFunctionMode):
    """What the functions mean that a loop over experts calls, inside one call of it.

    Args:
        experts: how many there are. A mask may have one class more, of choices that are no expert of this block: it is
            left out.
    """

    def __init__(self, experts: int | None) -> None:
        super().__init__()
        self._experts = experts
        self._tokens_last = True
        self._chosen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer in the place of `func`, if it is one of those that depend on data; else call it."""
        named = kwargs or {}
        if func is torch.Tensor.nonzero and not any(named.values()) and args[0].dim() == 1:
            return [_Expert(number) for number in range(args[0].shape[0])][: self._experts]
        if func is torch.where and len(args) == 1 and not named and args[0].dim() == 2:  # noqa: PLR2004
            return self._every_token(args[0])
        if func is torch.Tensor.index_add_:
            found = self._added(*args, **named)
            if found is not None:
                return found
        if func is torch.Tensor.permute:
            # The mask of choices is one_hot(...), of shape (tokens, choices of each, experts), with the experts first.
            self._tokens_last = args[-1] == 0 or (isinstance(args[-1], (tuple, list)) and args[-1][-1] == 0)
        if func is torch.Tensor.__getitem__:
            args = (args[0], _indices(args[1], args[0].device))
        return func(*args, **named)

    def _every_token(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every token, and which of its choices the expert was (the first, where it was none), in the mask's order."""
        choices = 0 if self._tokens_last else 1
        token = torch.arange(mask.shape[1 - choices], device=mask.device)
        choice = mask.to(torch.int64).argmax(dim=choices)
        self._chosen.append((token, mask.sum(dim=choices) > 0))
        return (choice, token) if self._tokens_last else (token, choice)

    def _added(self, into: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor) -> torch.Tensor | None:
        """The sum, with zero for a token that had not chosen the expert; None where the index is another one."""
        for token, chosen in self._chosen:
            if index is token and dim == 0:
                return into.add_(source.masked_fill(~chosen[:, None], 0))
        return None


class _Expert:
    """The number of an expert where the loop has a row of `nonzero`: a tensor of one number, as an index."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number

    def __getitem__(self, _: int) -> int:
        return self._number

    def item(self) -> int:
        return self._number


def _indices(index: Any, device: torch.device) -> Any:
    """The index with tensors of one number for the experts in it."""
    if isinstance(index, _Expert):
        return torch.arange(1, device=device) + index.__index__()
    return tuple(_indices(one, device) for one in index) if isinstance(index, tuple) else index


def _dense_when_traced(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(self: Any, *args: Any, **named: Any) -> Any:
        if torch.compiler.is_dynamo_compiling() or not is_traced(*args, *named.values()):
            return original(self, *args, **named)
        with _EveryExpert(getattr(self, "num_experts", None)):
            return original(self, *args, **named)

    return run


def _of_module(module: ModuleType) -> tuple[Replacement, ...]:
    """The functions of a module's classes that loop over experts."""
    return tuple(
        Replacement(cls, name, _dense_when_traced)
        for cls in model_classes(module)
        for name, member in list(vars(cls).items())
        if inspect.isfunction(member) and _loops_over_experts(member)
    )


def _loops_over_experts(function: Callable[..., Any]) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and set(code.co_names) >= _TELLS


PATCH = Patch(
    name="experts-by-data",
    replaces="the functions of transformers' models that loop over experts (Mixtral, GPT-OSS, ...), when traced",
    why="which experts were chosen, and by how many tokens, is data, which torch.export does not follow",
    page="docs/known-failures/experts-by-data.md",
    probe=_probe,
    replacements=lambda: in_loaded_modules(_of_module),
    of_module=_of_module,
)
