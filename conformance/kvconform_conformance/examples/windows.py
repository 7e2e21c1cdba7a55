"""One program for all lengths: decode steps of models with windows, exported once below the window."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks import shapes, trees
from kvconform.checks.errors import expect
from kvconform.checks.exporting import expect_exportable
from kvconform.checks.needs import Need, NotApplicableError, cache_class
from kvconform_conformance.examples.steps import CHUNKED, ExportedStep, step_of
from kvconform_conformance.examples.tiny import tokens

WINDOW = 8
EXPORTED_BATCH, EXPORTED_LENGTH = 2, 5
# (batch, first length, last length): from almost nothing, at the window's edge and from past it.
RUNS = ((2, 2, 40), (3, WINDOW - 2, 14), (1, WINDOW, 16), (2, 21, 30))
TOLERANCE = 1e-5


@dataclass(frozen=True)
class WindowStep:
    """A decode step of a model with a window."""

    step: ExportedStep

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.step.name

    @property
    def needs(self) -> tuple[Need, ...]:
        """A layer that slides, a torch that takes dynamic ints, and what the model needs."""
        dynamic_int = Need(_takes_dynamic_int, "this torch takes no dynamic int, which a counter has to be")
        # Those of the model are last: the one of Llama 4 runs it, which 4.52 cannot (its cache is bfloat16 always).
        return (cache_class("DynamicSlidingWindowLayer"), dynamic_int, *self.step.needs)


def _takes_dynamic_int() -> bool:
    """Asked with the smallest program, as `kvconform.probes` does; a subject has no part in it."""
    from kvconform import probes

    return bool(probes.takes_dynamic_int())


_SLIDING: dict[str, Any] = {"sliding_window": WINDOW, "num_hidden_layers": 1}
ONE_WINDOW_PROGRAM = tuple(
    WindowStep(step)
    for step in (
        step_of("mistral", **_SLIDING),
        step_of("gemma2", sliding_window=WINDOW),
        step_of("gemma3", sliding_window=WINDOW),
        step_of("gpt-oss", **_SLIDING, layer_types=["sliding_attention"]),
        step_of("llama4", attention_chunk_size=WINDOW, **CHUNKED),
        step_of("qwen2", **_SLIDING, use_sliding_window=True, max_window_layers=0),
        step_of("mistral", "-static", static=True, **_SLIDING),
    )
)


def require_one_structure(one: WindowStep) -> None:
    """Leave out a subject that says itself, by two specs, that no program takes both sides of a window.

    Raises:
        NotApplicableError: it gives a cache below its window and one past it two structures.
    """
    model = one.step.tiny.build()
    below, past = (one.step.cache(model, 2, length) for length in (WINDOW - 2, WINDOW + 3))
    if pytree.tree_structure(below) != pytree.tree_structure(past):
        raise NotApplicableError(
            "the subject gives a cache below its window and one past it two structures, and a program takes one"
        )


def expect_one_program_for_all_lengths(one: WindowStep) -> None:
    """Export a step below the window; decode with it from every side of the window, beside the model itself."""
    step = one.step
    model = step.tiny.build()
    trees.expect_registered(step.cache(model, 2, EXPORTED_LENGTH), step.name)
    asked = _dynamic_shapes(step, model)
    example = step.inputs(model, EXPORTED_BATCH, EXPORTED_LENGTH)
    program = expect_exportable(step.module(model), example, asked, where=step.name).module()
    for batch, first, last in RUNS:
        _expect_decodes(step, model, program, (batch, first, last))


def _dynamic_shapes(step: ExportedStep, model: Any) -> Any:
    """`Dim.AUTO` for the batch, the length and every int of the cache that varies, in the subject's own structure."""
    dims = shapes.hinted("AUTO")
    cache = shapes.dynamic_shapes(lambda *sizes: step.cache(model, *sizes), EXPORTED_BATCH, EXPORTED_LENGTH, dims)
    return ({0: dims.batch}, cache, {})


def _expect_decodes(step: ExportedStep, model: Any, program: Any, run: tuple[int, int, int]) -> None:
    batch, first, last = run
    _, ours, _, *_ = step.inputs(model, batch, first)
    theirs = copy.deepcopy(ours)
    module = step.module(model)
    for length in range(first, last):
        where = f"{step.name}, window {WINDOW}, batch {batch}, {length} tokens before"
        ids, position = tokens(batch, 1, seed=length), torch.tensor([length])
        expected, theirs = module(ids, theirs, position)
        got, ours = program(ids, ours, position)
        worst = (got - expected).abs().max().item()
        expect(worst <= TOLERANCE, f"logits differ by {worst:.3g}, expected at most {TOLERANCE:g}", where)
        _expect_bounded(ours, theirs, where)


def _expect_bounded(ours: Any, theirs: Any, where: str) -> None:
    """The layers hold as many tokens as those of eager, which never hold more than the window."""
    for index, (mine, other) in enumerate(zip(ours.layers, theirs.layers, strict=True)):
        held, expected = mine.keys.shape[2], other.keys.shape[2]
        expect(held == expected, f"layer {index} holds {held} tokens, expected {expected}", where)
        count, expected = mine.get_seq_length(), other.get_seq_length()
        expect(int(count) == int(expected), f"layer {index} has counted {count} tokens, expected {expected}", where)
        if getattr(other, "is_sliding", False):
            expect(held <= WINDOW, f"layer {index} holds {held} tokens, expected at most {WINDOW}", where)
