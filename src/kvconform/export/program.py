"""One exported program: what it takes, whether it takes these inputs, running it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

__all__ = ["Leaf", "Program", "Refusal", "leaves_of"]

_BATCH_ONE = 2


@dataclass(frozen=True)
class Leaf:
    """An input of a program.

    Attributes:
        name: its name in the program.
        dtype: of a tensor, else "".
        sizes: for each dimension its size, or its smallest and largest one (None: no limit).
    """

    name: str
    dtype: str
    sizes: tuple[int | tuple[int, int | None], ...]

    def takes(self, value: Any) -> bool:
        """Whether a value has a dtype and a size in each dimension that were traced."""
        if not isinstance(value, torch.Tensor):
            return not self.dtype
        if str(value.dtype).removeprefix("torch.") != self.dtype or value.dim() != len(self.sizes):
            return False
        return all(_within(size, traced) for size, traced in zip(value.shape, self.sizes, strict=True))

    def __str__(self) -> str:
        shape = ", ".join(_size_text(size) for size in self.sizes)
        return f"{self.name} {self.dtype}({shape})" if self.dtype else self.name


class Refusal(Exception):  # noqa: N818 - caught by the caller, which tries the next program
    """A program's own condition on its inputs does not hold."""


@dataclass
class Program:
    """An exported program of one kind of step and one structure of the cache.

    Attributes:
        kind: "encoder", "prefill" or "decode".
        names: its keyword arguments, in order.
        exported: the program.
        leaves: its inputs, flat.
    """

    kind: str
    names: tuple[str, ...]
    exported: torch.export.ExportedProgram
    leaves: tuple[Leaf, ...]
    _module: Any = field(default=None, repr=False)
    _specs: tuple[Any, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def spec(self) -> Any:
        """The structure of its arguments."""
        return self._structures()[0]

    @property
    def result(self) -> Any:
        """The structure of what it gives."""
        return self._structures()[1]

    def _structures(self) -> tuple[Any, Any]:
        if self._specs is None:
            # torch makes a class each time that it is asked for these, which shows in the time of a compiled step.
            both = self.exported.call_spec
            self._specs = (both.in_spec, both.out_spec)
        return self._specs

    def takes(self, inputs: dict[str, Any]) -> bool:
        """Whether structure, dtypes and sizes are those that were traced. The program may still refuse them."""
        if set(inputs) != set(self.names):
            return False
        flat, spec = py_pytree.tree_flatten(((), {name: inputs[name] for name in self.names}))
        return bool(spec == self.spec) and all(leaf.takes(value) for leaf, value in zip(self.leaves, flat, strict=True))

    def conditions(self) -> Any:
        """What torch.export found to hold for the inputs, as a module; None where torch checks sizes only."""
        if self._module is None:
            self._module = self.exported.module()
        return getattr(self._module, "_guards_fn", None)

    def run(self, inputs: dict[str, Any]) -> Any:
        """What the program gives.

        Raises:
            Refusal: a condition that was traced does not hold for these inputs.
        """
        if self._module is None:
            self._module = self.exported.module()
        try:
            return self._module(**{name: inputs[name] for name in self.names})
        except (AssertionError, RuntimeError, ValueError) as error:
            raise Refusal(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def leaves_of(exported: torch.export.ExportedProgram) -> tuple[Leaf, ...]:
    """The inputs of a program with their traced sizes, read from its placeholders."""
    from torch.export.graph_signature import InputKind

    placeholders = [node for node in exported.graph.nodes if node.op == "placeholder"]
    kinds = [spec.kind for spec in exported.graph_signature.input_specs]
    inputs = [node for node, kind in zip(placeholders, kinds, strict=True) if kind == InputKind.USER_INPUT]
    ranges = {str(symbol): limits for symbol, limits in exported.range_constraints.items()}
    return tuple(_leaf(node, ranges) for node in inputs)


def _leaf(node: Any, ranges: dict[str, Any]) -> Leaf:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return Leaf(node.name, "", ())
    return Leaf(node.name, str(value.dtype).removeprefix("torch."), tuple(_size(size, ranges) for size in value.shape))


def _size(size: Any, ranges: dict[str, Any]) -> int | tuple[int, int | None]:
    if isinstance(size, int):
        return size
    limits = ranges.get(str(size))
    if limits is None:
        # An expression over other sizes: the program checks it.
        return (0, None)
    lower = int(limits.lower)
    # torch writes 2 for a size that is symbolic, and runs the program at 0 and 1 too.
    return (0 if lower <= _BATCH_ONE else lower, _upper(limits.upper))


def _upper(value: Any) -> int | None:
    try:
        number = int(value)
    except (OverflowError, TypeError, ValueError, AttributeError):
        return None
    # torch 2.5 writes its largest integer for no limit.
    return None if number >= torch.iinfo(torch.int64).max - 1 else number


def _within(size: int, traced: int | tuple[int, int | None]) -> bool:
    if isinstance(traced, int):
        return size == traced
    lower, upper = traced
    return size >= lower and (upper is None or size <= upper)


def _size_text(size: int | tuple[int, int | None]) -> str:
    if isinstance(size, int):
        return str(size)
    lower, upper = size
    return f"{lower}.." if upper is None else f"{lower}..{upper}"
