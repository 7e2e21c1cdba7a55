"""Models that ask a tensor of positions where a step begins, answered while they are traced.

State-space models of transformers 4.x and 5.0 to 5.3 tell a decode step from a prompt by `cache_position[0] > 0`.
What a tensor holds is data, which torch.export does not follow. Most of these tensors hold nothing that the tracer
does not know: the model makes them itself, by `torch.arange(held, held + new)`, and their first number is `held`.
Here it is: a branch on it becomes a branch on a length, which the tracer decides or guards on.

Positions that the caller gives (`cache_position=...`) are not known. There one position is a decode step, and several
are the first tokens of a prompt, which is what these models make of them: their states take the tokens after the first
ones one by one. The program asserts it when it runs: a step at position 0, or a prompt in pieces, raises and gives no
wrong logits.

The length of a mask is made of the last position, `cache_position[-1] + 1` (Jamba, Zamba). Where the caller gave a mask
of two dimensions too, that is its length, and the program asserts it.

The beginning of a prompt asks the mask too, which the patch `branch-on-mask` answers.

Dynamo (a strict export, torch.compile) does not follow such a change of functions; there the model runs as it is.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from kvconform.patches.of_models import in_loaded_modules, model_classes, source_of
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_ASKS = ("cache_position[0]", "cache_position[-1] + 1")
"""What the source of a model holds that asks for the first position, or makes a length of the last."""
_ASKED = ("jamba", "mamba2", "bamba", "whisper")
"""Models that ask it in the releases that do; the probe reads these."""
_GIVEN = "cache_position"
_ADDS = {"add", "__add__", "__radd__"}
_COMPARED = {"gt": operator.gt, "ne": operator.ne, "eq": operator.eq}


def _probe() -> Answer:
    if importlib.util.find_spec("transformers") is None:
        return not_applicable("transformers is not installed")
    sources = [source for source in map(source_of, _ASKED) if source]
    if not any(asked in source for source in sources for asked in _ASKS):
        return not_applicable("the models of this release do not ask a tensor of positions where a step begins")
    return needed("models of this release ask a tensor of positions where a step begins, which is data")


class _Range(NamedTuple):
    """What is known of a tensor that `torch.arange` made: its first number, and the one after its last."""

    start: Any
    end: Any


class _First(NamedTuple):
    """The first of the positions that the caller gave, and whether it is the only one."""

    alone: bool


class _Assumed(NamedTuple):
    """What a comparison of such a position with 0 is taken to say; the program asserts it."""

    answer: bool


class _KnownPositions(TorchFunctionMode):
    """What is known of positions, inside one call of a model.

    Args:
        given: the positions that the caller gave, if any.
        mask: the mask of two dimensions that the caller gave, if any.
    """

    def __init__(self, given: Any, mask: Any) -> None:
        super().__init__()
        # By the identity of a tensor: the tensor, which stays alive by that, and what is known of it.
        self._known: dict[int, tuple[torch.Tensor, Any]] = {}
        self._given = given if isinstance(given, torch.Tensor) and given.dim() == 1 else None
        self._mask = mask
        self._asserted = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, and keep what is known of its result; the truth of a comparison is answered."""
        named = kwargs or {}
        if func is torch.Tensor.__bool__ and self._of(args[0]) is not None:
            return self._truth(args[0])
        if func is torch.full or func is torch.arange:
            args = tuple(self._numbers(one) for one in args)
        if func is torch.Tensor.__getitem__:
            args = (args[0], self._bounds(args[1]))
        result = func(*args, **named)
        if func.__name__.endswith("_") and args and (result is args[0] or result is None):
            self._known.pop(id(args[0]), None)  # It was written to.
        known = self._of_result(func, args, named)
        if known is not None:
            self._known[id(result)] = (result, known)
        return result

    def _of(self, value: Any) -> Any:
        return self._known[id(value)][1] if isinstance(value, torch.Tensor) and id(value) in self._known else None

    def _of_result(self, func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What is known of the result of `func`; None where nothing is."""
        if func is torch.arange:
            return _range(args, named)
        name = func.__name__.strip("_")
        if named or len(args) != 2 or not isinstance(args[1], (int, float, torch.SymInt)):  # noqa: PLR2004
            return None
        if func is torch.Tensor.__getitem__:
            return self._element(*args)
        if name in _COMPARED:
            return self._comparison(name, *args)
        number: Any = self._of(args[0]) if func.__name__ in _ADDS else None
        return number + args[1] if _is_number(number) else None

    def _element(self, tensor: torch.Tensor, index: int) -> Any:
        known = self._of(tensor)
        if isinstance(known, _Range) and index in (0, -1):
            return known.start if index == 0 else known.end - 1
        if tensor is not self._given:
            return None
        return _First(bool(tensor.shape[0] == 1)) if index == 0 else self._last(tensor) if index == -1 else None

    def _last(self, given: torch.Tensor) -> Any:
        """The last of the positions that the caller gave: that of the mask's last token, which the program asserts."""
        if not isinstance(self._mask, torch.Tensor) or self._mask.dim() != 2:  # noqa: PLR2004 (a row for each text)
            return None
        last = self._mask.shape[1] - 1
        torch._assert_async(
            given[-1] == last,
            "the mask of this program ends with the last position: give it a column for every token so far",
        )
        return last

    def _comparison(self, name: str, tensor: torch.Tensor, number: Any) -> Any:
        known = self._of(tensor)
        if isinstance(known, _First) and number == 0:
            return _Assumed(known.alone if name != "eq" else not known.alone)
        if not _is_number(known):
            return None
        return _COMPARED[name](known, number)

    def _truth(self, tensor: torch.Tensor) -> bool:
        known = self._of(tensor)
        if not isinstance(known, _Assumed):
            return bool(known)
        if not self._asserted:
            self._asserted = True
            torch._assert_async(
                tensor == known.answer,
                "this program was exported for one kind of step: with one position it is a decode step, after "
                "position 0; with several it is the beginning of a prompt, at position 0. Export the other kind too",
            )
        return known.answer

    def _numbers(self, value: Any) -> Any:
        """The number in the place of a tensor of it, also in a tuple of sizes."""
        if isinstance(value, (tuple, list)):
            return tuple(map(self._numbers, value))
        known = self._of(value)
        return known if _is_number(known) else value

    def _bounds(self, index: Any) -> Any:
        """An index with numbers in the place of tensors that bound a slice."""
        if isinstance(index, tuple):
            return tuple(map(self._bounds, index))
        if not isinstance(index, slice):
            return index
        return slice(self._numbers(index.start), self._numbers(index.stop), index.step)


def _range(args: tuple[Any, ...], named: dict[str, Any]) -> _Range | None:
    """The numbers of `torch.arange(end)` or `torch.arange(start, end)`; None of another one."""
    bounds = args if len(args) == 2 else (0, *args)  # noqa: PLR2004 (a start and an end)
    if len(bounds) != 2 or named.keys() - {"device", "dtype"}:  # noqa: PLR2004
        return None
    return _Range(*bounds) if all(map(_is_number, bounds)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def _answered_when_traced(original: Callable[..., Any]) -> Callable[..., Any]:
    taken = inspect.signature(inspect.unwrap(original))

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **named: Any) -> Any:
        if torch.compiler.is_dynamo_compiling() or not is_traced(*args, *named.values()):
            return original(self, *args, **named)
        given = taken.bind_partial(self, *args, **named).arguments
        with _KnownPositions(given.get(_GIVEN), given.get("attention_mask")):
            return original(self, *args, **named)

    return forward


def _of_module(module: ModuleType) -> tuple[Replacement, ...]:
    """The `forward` of those classes that make positions, in modules whose models ask for the first."""
    found = [
        cls for cls in model_classes(module) if inspect.isfunction(vars(cls).get("forward")) and _makes_positions(cls)
    ]
    if not found or not _asks(module):
        return ()
    return tuple(Replacement(cls, "forward", _answered_when_traced) for cls in found)


def _makes_positions(cls: Any) -> bool:
    code = getattr(inspect.unwrap(cls.forward), "__code__", None)
    return code is not None and _GIVEN in code.co_varnames and "arange" in code.co_names


def _asks(module: ModuleType) -> bool:
    try:
        source = inspect.getsource(module)
    except OSError:
        return False
    return any(asked in source for asked in _ASKS)


PATCH = Patch(
    name="branch-on-position",
    replaces="forward of transformers' models that ask `cache_position[0] > 0` (up to 5.3), when traced",
    why="they tell a decode step from a prompt by what a tensor of positions holds, which torch.export does not follow",
    page="docs/known-failures/branch-on-position.md",
    probe=_probe,
    replacements=lambda: in_loaded_modules(_of_module),
    of_module=_of_module,
)
