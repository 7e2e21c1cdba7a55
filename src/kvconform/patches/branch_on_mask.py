"""Models that ask a mask whether it holds nothing but ones, answered while they are traced.

State-space models and linear attentions (4.45 to 5.14) hide padding from their states by a product with the mask, and
ask `torch.all(attention_mask == 1)` first, to save it. What a tensor holds is data, which torch.export does not follow.
The answer is no here: the product is computed, and x * 1 is x.

Dynamo (a strict export, torch.compile) does not follow such a change of functions; there the model runs as it is.
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

from kvconform.patches.of_models import in_loaded_modules, model_classes, source_of
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_MASK = "attention_mask"
_ASKS = "torch.all(attention_mask"
"""What the source of a model holds that asks it."""
_ASKED = ("jamba", "bamba", "zamba", "zamba2", "nemotron_h", "qwen3_next")
"""Models that ask it in the releases that do; the probe reads these."""


def _probe() -> Answer:
    if importlib.util.find_spec("transformers") is None:
        return not_applicable("transformers is not installed")
    if not any(_ASKS in (source_of(model) or "") for model in _ASKED):
        return not_applicable("no model of this release asks a mask whether it holds nothing but ones")
    return needed("models of this release ask a mask whether it holds nothing but ones, which is data")


class _TakenForPadded(TorchFunctionMode):
    """Inside one call of a model: its mask is not taken to be all ones.

    Args:
        mask: the mask that the caller gave.
    """

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self._mask = mask
        # Where the mask holds ones, and whether it does everywhere; kept, so that no other tensor gets their identity.
        self._answers: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, and remember what of its results is about ones; the truth of one is no."""
        named = kwargs or {}
        if func is torch.Tensor.__bool__ and self._is_answer(args[0]):
            return False
        result = func(*args, **named)
        name = func.__name__.strip("_")
        of_ones = name == "eq" and len(args) == 2 and args[0] is self._mask and _is_one(args[1])  # noqa: PLR2004
        if not named and (of_ones or (name == "all" and len(args) == 1 and self._is_answer(args[0]))):
            self._answers.append(result)
        return result

    def _is_answer(self, value: Any) -> bool:
        return any(value is one for one in self._answers)


def _is_one(value: Any) -> bool:
    return type(value) is int and value == 1


def _answered_when_traced(original: Callable[..., Any]) -> Callable[..., Any]:
    taken = inspect.signature(inspect.unwrap(original))

    @functools.wraps(original)
    def method(self: Any, *args: Any, **named: Any) -> Any:
        if torch.compiler.is_dynamo_compiling() or not is_traced(*args, *named.values()):
            return original(self, *args, **named)
        mask = taken.bind_partial(self, *args, **named).arguments.get(_MASK)
        if not isinstance(mask, torch.Tensor):
            return original(self, *args, **named)
        with _TakenForPadded(mask):
            return original(self, *args, **named)

    return method


def _of_module(module: ModuleType) -> tuple[Replacement, ...]:
    """The methods of a model's modules that ask it."""
    return tuple(
        Replacement(cls, name, _answered_when_traced)
        for cls in model_classes(module)
        for name, member in vars(cls).items()
        if inspect.isfunction(member) and _asks(inspect.unwrap(member))
    )


def _asks(method: Any) -> bool:
    if "all" not in method.__code__.co_names or _MASK not in inspect.signature(method).parameters:
        return False
    try:
        return _ASKS in inspect.getsource(method)
    except OSError:
        return False


PATCH = Patch(
    name="branch-on-mask",
    replaces="methods of transformers' models that ask `torch.all(attention_mask == 1)` (4.45 to 5.14), when traced",
    why="they ask a mask whether it holds nothing but ones, which is data that torch.export does not follow",
    page="docs/known-failures/branch-on-mask.md",
    probe=_probe,
    replacements=lambda: in_loaded_modules(_of_module),
    of_module=_of_module,
)
