"""Checks of exported programs: they exist, equal eager, keep what was asked dynamic, and go on decoding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks.errors import ExpectationError, expect, expect_equal
from kvconform.checks.observe import differences, essence, observe
from kvconform.checks.shapes import varying
from kvconform.checks.trees import expect_no_differences

TOLERANCE = 1e-5
Inputs = tuple[Any, ...]


def expect_exportable(
    module: torch.nn.Module, args: Inputs, dynamic_shapes: Any = None, *, strict: bool = False, where: str = ""
) -> torch.export.ExportedProgram:
    """Prove that `torch.export` takes the module with these inputs, and that the program equals eager on them."""
    __tracebackhide__ = True
    program = export(module, args, dynamic_shapes, strict=strict, where=where)
    expect_program_equals_eager(program, module, args, where=f"{where}, the exported inputs")
    return program


def export(
    module: torch.nn.Module, args: Inputs, dynamic_shapes: Any = None, *, strict: bool = False, where: str = ""
) -> torch.export.ExportedProgram:
    """Export a copy of the inputs (tracing may change them).

    Whatever `torch.export` raises is a failed expectation.
    """
    __tracebackhide__ = True
    try:
        return torch.export.export(module, copy.deepcopy(args), dynamic_shapes=dynamic_shapes, strict=strict)
    except Exception as error:
        raise ExpectationError(f"torch.export raised {_one_line(error)}, expected a program [{where}]") from error
    finally:
        if strict:
            # Dynamo keeps compiled frames and their guards; the next check must not see them.
            torch._dynamo.reset()


def expect_program_equals_eager(program: Any, module: torch.nn.Module, args: Inputs, *, where: str = "") -> Any:
    """Prove that a program gives what the module gives and leaves its inputs as the module does; return its result.

    A returned cache is compared whole: tensors, classes, windows and counters.
    """
    __tracebackhide__ = True
    expected_args, got_args = copy.deepcopy(args), copy.deepcopy(args)
    expected = module(*expected_args)
    got = run(program, got_args, where)
    expect_no_differences(
        differences(essence(observe(got)), essence(observe(expected)), TOLERANCE),
        "the program's result differs from eager",
        where,
    )
    return got


def run(program: Any, args: Inputs, where: str = "") -> Any:
    """Run an exported program; whatever it raises is a failed expectation."""
    __tracebackhide__ = True
    try:
        return _runnable(program)(*args)
    except Exception as error:
        raise ExpectationError(f"the program raised {_one_line(error)}, expected a result [{where}]") from error


_made: list[tuple[Any, torch.nn.Module]] = []
"""The program that was run last, with the module that torch made of it."""


def _runnable(program: Any) -> Any:
    """What can be called: torch generates code for the module of a program, and a program is asked many times."""
    if isinstance(program, torch.nn.Module) or not hasattr(program, "module"):
        return program
    if not (_made and _made[0][0] is program):
        _made[:] = [(program, program.module())]
    return _made[0][1]


def expect_symbolic_exactly(program: torch.export.ExportedProgram, shapes: Any, where: str = "") -> None:
    """Prove that the placeholders are symbolic in the dimensions that were asked for, and in no other."""
    __tracebackhide__ = True
    values = [node.meta.get("val") for node in _user_inputs(program)]
    asked = varying(shapes)
    expect_equal("the number of placeholders", len(values), len(asked), where)
    for index, (value, wanted) in enumerate(zip(values, asked, strict=True)):
        if not isinstance(value, torch.Tensor):
            continue
        sizes: list[Any] = list(value.shape)
        symbolic = [dim for dim, size in enumerate(sizes) if isinstance(size, torch.SymInt)]
        dims = sorted(dim for dim, ask in (wanted or {}).items() if ask is not None)
        expect(
            symbolic == dims,
            f"input {index} of shape {list(value.shape)} is symbolic in {symbolic}, expected {dims}",
            where,
        )


def _user_inputs(program: torch.export.ExportedProgram) -> list[Any]:
    """The placeholders of user inputs, in order; parameters and buffers come before them."""
    from torch.export.graph_signature import InputKind

    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    kinds = [spec.kind for spec in program.graph_signature.input_specs]
    return [node for node, kind in zip(placeholders, kinds, strict=True) if kind == InputKind.USER_INPUT]


def expect_decodes(  # noqa: PLR0913 - a builder or check of many settings
    program: Any,
    module: torch.nn.Module,
    args: Inputs,
    feed: Callable[[int], torch.Tensor],
    *,
    steps: int = 8,
    where: str = "",
) -> None:
    """Prove that `steps` steps through one program, each fed the cache that the one before returned, equal eager.

    `args` are `(x, cache, position)`, and more that stays the same; `feed(step)` gives the next `x`. Caches are
    compared whole after every step, so a sliding cache that grows past its window, or a counter that stands still, is
    seen although the results may agree.
    """
    __tracebackhide__ = True
    _, cache, position, *others = args
    eager, exported = copy.deepcopy(cache), copy.deepcopy(cache)
    for step in range(steps):
        x, place = feed(step), position + step * position.numel()
        expected, eager = module(x, eager, place, *others)
        now = f"{where}, step {step + 1} of {steps}"
        got, exported = run(program, (x, exported, place, *others), now)
        expect_no_differences(
            differences(essence(observe(got)), essence(observe(expected)), TOLERANCE),
            "the result of a step differs from eager",
            now,
        )
        expect_no_differences(
            differences(essence(observe(exported)), essence(observe(eager)), TOLERANCE),
            "the returned cache differs from eager",
            now,
        )


def expect_goes_on(
    program: Any, module: torch.nn.Module, args: Inputs, steps: Sequence[torch.Tensor], *, where: str = ""
) -> None:
    """Prove that a prefill gives what the module gives, and that eager decodes on from the cache that it returned.

    `args` are `(x, cache, position)`, and more that stays the same; `steps` are the next `x`, one position
    each. What the program returned is judged as in `expect_program_equals_eager`. What only later steps read
    of a cache, such as whether it may still grow, is seen by decoding on.
    """
    __tracebackhide__ = True
    position, others = args[2], args[3:]
    _, exported = expect_program_equals_eager(program, module, args, where=where)
    _, eager = module(*copy.deepcopy(args))
    for step, x in enumerate(steps):
        place = position[-1:] + 1 + step
        expected, eager = module(x, eager, place, *others)
        got, exported = module(x, exported, place, *others)
        now = f"{where}, step {step + 1} of {len(steps)}"
        expect_no_differences(
            differences(essence(observe((got, exported))), essence(observe((expected, eager))), TOLERANCE),
            "an eager step from the returned cache differs",
            now,
        )


def leaves_of(value: Any) -> list[torch.Tensor]:
    """The tensor leaves of a result."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _one_line(error: BaseException, limit: int = 600) -> str:
    """An exception as one line; torch writes whole graphs into some."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:limit]}{'...' if len(text) > limit else ''}"
