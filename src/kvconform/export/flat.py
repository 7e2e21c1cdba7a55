"""A program as a function of tensors alone, for runtimes that take nothing else.

A counter of a cache is an int. AOTInductor drops inputs that are no tensors (`torch._inductor.compile_fx`,
`_aoti_flatten_inputs`, until 2.15 at least): a program with a counter then fails, since an operand is None. Here a
counter `n` travels as the shape of a tensor without elements, (n, 0): torch.export makes sizes dynamic on every
release, it costs no memory, and no value has to be read from a tensor.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform.export.program import Program

__all__ = ["FlatModule", "carried", "flat_program", "output_counters", "uncarried"]


def carried(leaves: list[Any]) -> list[torch.Tensor]:
    """Leaves as tensors, each counter as one of shape (counter, 0)."""
    return [leaf if isinstance(leaf, torch.Tensor) else torch.empty(leaf, 0) for leaf in leaves]


def uncarried(leaves: list[torch.Tensor], like: list[bool]) -> list[Any]:
    """Leaves as they were: a counter where `like` says so.

    Args:
        leaves: what `carried` gave.
        like: for each leaf whether it is a counter.
    """
    return [leaf.shape[0] if counter else leaf for leaf, counter in zip(leaves, like, strict=True)]


class FlatModule(torch.nn.Module):
    """A program whose inputs and outputs are the leaves, in order, as positional arguments and a tuple.

    Args:
        program: the program.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        exported = program.exported
        # The conditions of a program are asked by whoever runs it; in the graph they would be traced for nothing.
        asked = "check_guards" in inspect.signature(exported.module).parameters
        self.program = exported.module(check_guards=False) if asked else exported.module()
        self.spec = program.spec
        self.counters = [not leaf.dtype for leaf in program.leaves]

    def forward(self, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The leaves of the result; counters travel as shapes."""
        args, kwargs = py_pytree.tree_unflatten(uncarried(list(leaves), self.counters), self.spec)
        return tuple(carried(py_pytree.tree_leaves(self.program(*args, **kwargs))))


def flat_program(program: Program) -> torch.export.ExportedProgram:
    """Export a program again, as a `FlatModule`.

    Args:
        program: with its example inputs.
    """
    leaves = carried(py_pytree.tree_leaves(program.exported.example_inputs))
    shapes = tuple(_dynamic(leaf.sizes if leaf.dtype else ((0, None), 0)) for leaf in program.leaves)
    with torch.no_grad():
        return torch.export.export(FlatModule(program), tuple(leaves), dynamic_shapes=(shapes,), strict=False)


def output_counters(exported: torch.export.ExportedProgram) -> list[bool]:
    """For each leaf of a program's result whether it is a counter."""
    (output,) = (node for node in exported.graph.nodes if node.op == "output")
    values = [getattr(node, "meta", {}).get("val", node) for node in output.args[0]]
    # A program that changes an input gives it first.
    values = values[len(values) - exported.call_spec.out_spec.num_leaves :]
    return [not isinstance(value, torch.Tensor) for value in values]


def _dynamic(sizes: tuple[Any, ...]) -> dict[int, Any]:
    return {axis: torch.export.Dim.AUTO for axis, size in enumerate(sizes) if not isinstance(size, int)}
