"""Prefills of tiny models, to be exported: a prompt appended to an empty cache, or to one that holds tokens."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch

from kvconform.checks import shapes, trees
from kvconform.checks.exporting import expect_exportable, expect_goes_on
from kvconform.checks.needs import Need, lookup
from kvconform_conformance.examples.models import WINDOW
from kvconform_conformance.examples.steps import (
    CHUNKED,
    LONGEST,
    LONGEST_BELOW,
    MAXIMUM,
    SLIDING,
    WIDE,
    ExportedStep,
    Inputs,
    step_of,
)
from kvconform_conformance.examples.tiny import Start, chosen_by_model, hybrid, own_class, tokens

NEXT_STEPS = 4


@dataclass(frozen=True)
class Sizes:
    """How many sequences, how many tokens the cache holds of each, and how many are appended at once."""

    batch: int
    held: int
    count: int


PROMPT, PROMPTS = Sizes(2, 0, 6), (Sizes(3, 0, 9), Sizes(5, 0, 7))
PIECE, PIECES = Sizes(2, 6, 5), (Sizes(3, 9, 6), Sizes(5, 7, 8))
# State spaces work in chunks of 4 tokens and pad the last one. Whether there is padding depends on the length, and a
# program cannot depend on that, so the lengths are multiples of 4.
WHOLE, WHOLES = Sizes(2, 0, 12), (Sizes(3, 0, 8), Sizes(5, 0, 16))
WHOLE_PIECE, WHOLE_PIECES = Sizes(2, 6, 12), (Sizes(3, 9, 8), Sizes(5, 7, 16))
# A loop over the tokens, or over blocks of them, makes their number a constant of the program. The number is the width
# of the convolutions: Mamba models of transformers 4.x take any other number of cache positions for a decode step.
FIXED, FIXED_TOO = Sizes(2, 0, 4), (Sizes(3, 0, 4), Sizes(5, 0, 4))
FIXED_PIECE, FIXED_PIECES = Sizes(2, 6, 4), (Sizes(3, 9, 4), Sizes(5, 7, 4))


@dataclass(frozen=True)
class ExportedPrefill:
    """A prefill by the model of `step`: exported at the size `example`, run at the sizes `unseen`.

    `shortest` and `longest` bound how many tokens the program is asked to take at once. Their number is a multiple of
    `whole`; where `whole` is 0 it is always that of the example. `empty` makes the cache of a model that starts with
    none.
    """

    step: ExportedStep
    example: Sizes = PROMPT
    unseen: tuple[Sizes, ...] = PROMPTS
    shortest: int = 2
    longest: int = LONGEST
    whole: int = 1
    empty: Start = chosen_by_model

    @property
    def name(self) -> str:
        """The model, and whether its cache holds tokens before."""
        return f"{self.step.name}-chunk" if self.example.held else self.step.name

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the model needs."""
        return self.step.needs

    def cache(self, model: Any, batch: int, held: int) -> Any:
        """The cache that the prompt is appended to; an empty one is made as the model would make it."""
        if held:
            return self.step.inputs(model, batch, held)[1]
        if self.step.static:
            return lookup("transformers.cache_utils:StaticCache")(config=model.config, max_cache_len=MAXIMUM)
        for start in (self.step.tiny.start, self.empty):
            started = start(model, batch)
            if started is not None:
                return started
        cls = lookup("transformers.cache_utils:DynamicCache")
        return cls(config=model.config) if "config" in inspect.signature(cls.__init__).parameters else cls()

    def inputs(self, model: Any, sizes: Sizes) -> Inputs:
        """What the module takes: tokens, cache, their positions, and the encoder's output where there is one."""
        batch, held, count = sizes.batch, sizes.held, sizes.count
        cache, place = self.cache(model, batch, held), torch.arange(held, held + count)
        return tokens(batch, count, seed=1), cache, place, *self.step.encoded(model, batch)

    def dynamic_shapes(self, model: Any) -> Any:
        """Batch, length of the cache and number of tokens dynamic, in the structure that the subject gives."""
        dims = shapes.named(self.step.longest)
        count = self._count()
        batch, held = self.example.batch, self.example.held
        # A cache that holds nothing has no dynamic length.
        cache = shapes.dynamic_shapes(lambda *sizes: self.cache(model, sizes[0], held and sizes[1]), batch, held, dims)
        ids, place = ({0: dims.batch}, {}) if count is None else ({0: dims.batch, 1: count}, {0: count})
        return (ids, cache, place, *(({0: dims.batch},) if self.step.encodes else ()))

    def _count(self) -> Any:
        """The number of tokens as a dimension; None where it is a constant."""
        if not self.whole:
            return None
        count: Any = torch.export.Dim("count", min=-(-self.shortest // self.whole), max=self.longest // self.whole)
        return count if self.whole == 1 else self.whole * count


def _prompt(step: ExportedStep, shortest: int = 2) -> ExportedPrefill:
    """A prompt, appended to an empty cache."""
    return ExportedPrefill(step, shortest=shortest, longest=_longest(step))


def _longest(step: ExportedStep) -> int:
    """The longest prompt that is asked for.

    A HybridCache of these models holds 32 tokens; a prompt that fills it takes another path through its code.
    """
    return WIDE - 1 if step.tiny.start is hybrid else step.longest


def _chunk(step: ExportedStep, shortest: int = 2) -> ExportedPrefill:
    """The next tokens of a prompt, appended to a cache that holds the ones before."""
    return ExportedPrefill(step, PIECE, PIECES, shortest, _longest(step))


def _below(step: ExportedStep) -> tuple[ExportedPrefill, ExportedPrefill]:
    """Prefills of which the tokens held and the tokens appended together stay below the window."""
    half = WIDE // 2 - 1
    return _prompt(step), replace(_chunk(replace(step, longest=half)), longest=half)


def _in_chunks(step: ExportedStep) -> tuple[ExportedPrefill, ExportedPrefill]:
    """Whole chunks of 4 tokens, appended to an empty cache and to one that holds tokens."""
    return (
        ExportedPrefill(step, WHOLE, WHOLES, shortest=8, whole=WINDOW),
        ExportedPrefill(step, WHOLE_PIECE, WHOLE_PIECES, shortest=8, whole=WINDOW),
    )


def _of_fixed_length(step: ExportedStep) -> tuple[ExportedPrefill, ExportedPrefill]:
    """A number of tokens that is a constant of the program, for an empty cache and for one that holds tokens."""
    return ExportedPrefill(step, FIXED, FIXED_TOO, whole=0), ExportedPrefill(step, FIXED_PIECE, FIXED_PIECES, whole=0)


def _onto(path: str, prefills: tuple[ExportedPrefill, ...]) -> tuple[ExportedPrefill, ...]:
    """Prefills by a model with a cache class of its own, on the releases that have the class."""
    return tuple(replace(prefill, empty=own_class(f"transformers.models.{path}")) for prefill in prefills)


# The fewest tokens that bring a prompt past the window; below it the tree of the cache has another structure.
# A growing layer keeps one token less than its window; a static layer that is just full is not past it yet.
_PAST, _PAST_STATIC = WINDOW, WINDOW + 1
# The convolution of LFM2 is over 3 tokens.
_CONVOLVED = 3

PREFILLS = (
    _prompt(step_of("llama", num_hidden_layers=1)),
    _prompt(step_of("mistral", num_hidden_layers=1), _PAST),
    _prompt(step_of("t5", num_layers=1)),
    _chunk(step_of("mistral", num_hidden_layers=1)),
)
MORE_PREFILLS = (
    _prompt(step_of("gemma3"), _PAST_STATIC),
    _prompt(step_of("gpt-oss", **SLIDING), _PAST),
    _prompt(step_of("llama4", **CHUNKED), _PAST),
    _prompt(step_of("gpt2", n_layer=1)),
    _prompt(step_of("bart", decoder_layers=1)),
    _prompt(step_of("whisper", decoder_layers=1)),
    _prompt(step_of("qwen2", num_hidden_layers=1)),
    _prompt(step_of("gemma2"), _PAST_STATIC),
    _prompt(step_of("phi3", num_hidden_layers=1)),
    # Into the preallocated tensors of a StaticCache, which are made in the program.
    _prompt(step_of("llama", "-static", MAXIMUM, static=True, num_hidden_layers=1)),
    _prompt(step_of("mistral", "-static", MAXIMUM, static=True, num_hidden_layers=1), _PAST_STATIC),
    # The second piece of a prompt.
    _chunk(step_of("llama", num_hidden_layers=1)),
    _chunk(step_of("gemma3"), _PAST_STATIC),
    _chunk(step_of("gpt-oss", **SLIDING)),
    _chunk(step_of("llama4", **CHUNKED)),
    _chunk(step_of("gpt2", n_layer=1)),
    _chunk(step_of("t5", num_layers=1)),
    _chunk(step_of("whisper", decoder_layers=1)),
    _chunk(step_of("gemma2"), _PAST_STATIC),
    _chunk(step_of("llama", "-static", MAXIMUM, static=True, num_hidden_layers=1)),
    _chunk(step_of("mistral", "-static", MAXIMUM, static=True, num_hidden_layers=1)),
    *_below(step_of("mistral", "-below", LONGEST_BELOW, sliding_window=WIDE, num_hidden_layers=1)),
    # State spaces, linear attention and convolutions: in whole chunks where the model works in chunks, of one length
    # where it works in a loop.
    *_onto("mamba2.modeling_mamba2:Mamba2Cache", _in_chunks(step_of("mamba2", num_hidden_layers=1))),
    *_in_chunks(step_of("bamba")),
    *_in_chunks(step_of("falcon-h1", num_hidden_layers=1)),
    *_onto("mamba.modeling_mamba:MambaCache", _of_fixed_length(step_of("mamba", num_hidden_layers=1))),
    *_of_fixed_length(step_of("jamba")),
    # Only the first piece: on the second MiniMax raises in eager mode too (5.23: its mask is longer than the piece).
    *_onto("minimax.modeling_minimax:MiniMaxCache", _of_fixed_length(step_of("minimax"))[:1]),
    *_onto("qwen3_next.modeling_qwen3_next:Qwen3NextDynamicCache", _of_fixed_length(step_of("qwen3-next"))),
    *_onto(
        "lfm2.modeling_lfm2:Lfm2HybridConvCache",
        (_prompt(step_of("lfm2"), _CONVOLVED), _chunk(step_of("lfm2"), _CONVOLVED)),
    ),
)


def expect_prefills_when_exported(prefill: ExportedPrefill) -> None:
    """Export a prefill, run it at two other sizes beside the model itself, and let the model go on from both."""
    model = prefill.step.tiny.build()
    module = prefill.step.module(model)
    inputs = prefill.inputs(model, prefill.example)
    trees.expect_registered(inputs[1], prefill.name)
    program = expect_exportable(module, inputs, prefill.dynamic_shapes(model), where=prefill.name)
    for sizes in prefill.unseen:
        expect_goes_on(
            program,
            module,
            prefill.inputs(model, sizes),
            [tokens(sizes.batch, 1, seed=2 + step) for step in range(NEXT_STEPS)],
            where=f"{prefill.name}, batch {sizes.batch}, {sizes.count} tokens after {sizes.held}",
        )
