"""Caches of symbolic sizes, as `torch.export` has them: what a registration asks of a size, a program is bound to.

Whoever asks whether a cache is longer than some number gives each program a side of it. An exported program shows that
only where it is asked for sizes of both sides; symbols tell of every question.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from kvconform.checks import caches, shapes
from kvconform.checks.errors import expect
from kvconform.checks.example import Example
from kvconform.checks.trees import expect_registered

_NAMES = ("dynamic-one-layer", "dynamic-two-layers", "dynamic-middle-layer-skipped", "encoder-decoder")


def examples() -> tuple[Example, ...]:
    """The caches that are asked about: those without a window, which is a condition on the length by itself."""
    return caches.examples(*_NAMES)


def expect_no_conditions(example: Example) -> None:
    """Prove that flattening and rebuilding a cache asks nothing of its sizes but what it is told.

    Batch and length are symbols of the same name in every tensor, as an export with named dimensions has them.
    """
    __tracebackhide__ = True
    cache = example.build()
    expect_registered(cache, example.where)
    leaves, spec = pytree.tree_flatten(cache)
    asked = shapes.varying(shapes.dynamic_shapes(example.build, 2, example.length, shapes.Dims("batch", "length")))
    environment = ShapeEnv()
    symbol = _Symbols(environment)
    with FakeTensorMode(shape_env=environment):
        fake = [_symbolic(leaf, dims or {}, symbol) for leaf, dims in zip(leaves, asked, strict=True)]
        before = _conditions(environment)
        pytree.tree_flatten(pytree.tree_unflatten(fake, spec))
        found = [text for text in _conditions(environment) if text not in before]
    expect(not found, f"a round trip asks of its sizes {'; '.join(found[:3])}, expected nothing", example.where)


class _Symbols(dict[tuple[str, int], Any]):
    """A symbol for each name and size, made when it is first asked for."""

    def __init__(self, environment: ShapeEnv) -> None:
        super().__init__()
        self.environment = environment

    def __missing__(self, key: tuple[str, int]) -> Any:
        name, size = key
        source = ConstantSource(f"{name}{size}")
        made = self.environment.create_unspecified_symint_and_symbol(size, source, DimDynamic.DYNAMIC)
        self[key] = made
        return made


def _symbolic(leaf: Any, dims: dict[int, str], symbols: _Symbols) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    sizes = [symbols[dims[index], size] if index in dims else size for index, size in enumerate(leaf.shape)]
    return torch.empty(sizes, dtype=leaf.dtype)


def _conditions(environment: ShapeEnv) -> list[str]:
    """What was asked of sizes, and what is taken to be true of them since."""
    ranges = [f"{symbol} in {span}" for symbol, span in environment.var_to_range.items()]
    return [*(str(guard.expr) for guard in environment.guards), *map(str, environment.replacements.items()), *ranges]
