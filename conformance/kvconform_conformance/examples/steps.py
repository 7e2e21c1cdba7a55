"""Decode steps of tiny models, made to be exported: on which side of a window, and with which cache."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch

from kvconform.checks import shapes, trees
from kvconform.checks.exporting import expect_decodes, expect_exportable
from kvconform.checks.needs import Need, cache_class, lookup
from kvconform.checks.observe import observe
from kvconform_conformance.examples.models import BY_NAME
from kvconform_conformance.examples.tiny import TinyModel, chosen_by_model, hybrid, tokens

PROMPT, EXPORTED_STEPS, UNSEEN = 6, 16, ((3, 9), (5, 7))
WIDE = 32
# The most tokens that a cache holds before a step. GPT-2 has 128 positions. Below its window a layer keeps at most one
# token less than the window, and a program that was exported there is good for strictly fewer than that, the token that
# the step appends included.
LONGEST, LONGEST_BELOW = 100, WIDE - 3
MAXIMUM = 40
Inputs = tuple[Any, ...]


class DecodeStep(torch.nn.Module):
    """A causal model with the cache as input and output; it takes any number of tokens."""

    def __init__(self, model: Any, *, argument: str = "past_key_values", places: bool = False) -> None:
        super().__init__()
        self.model = model
        self.argument = argument
        taken = inspect.signature(model.forward).parameters
        self.place = places and "cache_position" in taken
        self.positions = "position_ids" in taken

    def forward(self, input_ids: torch.Tensor, cache: Any, position: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """A step of tokens at `position`; a model that takes `position_ids` is given them, as exporters do."""
        place: dict[str, Any] = {self.argument: cache}
        place |= {"cache_position": position} if self.place else {}
        place |= {"position_ids": position.unsqueeze(0)} if self.positions else {}
        output = self.model(input_ids=input_ids, use_cache=True, **place)
        return output.logits, getattr(output, self.argument)


class EncodedDecodeStep(torch.nn.Module):
    """The decoder of an encoder-decoder with the cache as input and output; the encoder has run before."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        cache: Any,
        position: torch.Tensor,  # noqa: ARG002 - the model counts by itself
        encoded: torch.Tensor,
    ) -> tuple[torch.Tensor, Any]:
        """One step; `encoded` has the shape `(batch, source length, width)`.

        The mask is given, as `generate` gives it: when it is traced, BART of transformers 4.53 to 4.57 makes one that
        is too long.
        """
        mask = torch.ones(input_ids.shape[0], cache.get_seq_length() + input_ids.shape[1], dtype=torch.long)
        output = self.model(
            encoder_outputs=(encoded,),
            decoder_input_ids=input_ids,
            decoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits, output.past_key_values


@dataclass(frozen=True)
class ExportedStep:
    """A decode step of a model, with inputs at any batch size and length."""

    name: str
    tiny: TinyModel
    longest: int = LONGEST
    static: bool = False

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the model needs; a StaticCache has windows only on releases whose layers have them."""
        return (*self.tiny.needs, *((cache_class("DynamicSlidingWindowLayer"),) if self.static else ()))

    @property
    def encodes(self) -> bool:
        """Whether the model is an encoder-decoder."""
        return self.tiny.encode is not chosen_by_model

    @property
    def places(self) -> bool:
        """Whether `cache_position` is given.

        Without it a model reads how many tokens preallocated tensors hold from their values, and so would the program.
        """
        return self.static or self.tiny.start is hybrid or self.tiny.argument != "past_key_values"

    def module(self, model: Any) -> torch.nn.Module:
        """The step as a module: `(logits, cache)` of `(ids, cache, position)`, and of the encoder's output."""
        return (
            EncodedDecodeStep(model)
            if self.encodes
            else DecodeStep(model, argument=self.tiny.argument, places=self.places)
        )

    def cache(self, model: Any, batch: int, length: int) -> Any:
        """The cache after a prompt."""
        if not self.static:
            return self.tiny.prefill(model, batch, length)
        cache = lookup("transformers.cache_utils:StaticCache")(config=model.config, max_cache_len=MAXIMUM)
        return self.tiny.cache_of(model(**self.tiny.step(model, tokens(batch, length), cache)))

    def inputs(self, model: Any, batch: int, length: int) -> Inputs:
        """What the module takes after a prompt of `length` tokens.

        Tensors that are slices of longer ones are replaced by contiguous copies: their strides would become guards of
        the program, and the returned cache, which is the input of the next step, has other strides. The copies are put
        in place without flattening the cache, so that the subject under test has no part in them.
        """
        cache = self.cache(model, batch, length)
        for tensor in observe(cache).values():
            if isinstance(tensor, torch.Tensor):
                tensor.data = tensor.contiguous()
        return tokens(batch, 1, seed=1), cache, torch.tensor([length]), *self.encoded(model, batch)

    def encoded(self, model: Any, batch: int) -> Inputs:
        """The encoder's output, where there is an encoder."""
        return (self.tiny.encode(model, batch).last_hidden_state,) if self.encodes else ()

    def dynamic_shapes(self, model: Any, batch: int, length: int) -> Any:
        """Batch and length dynamic, in the structure that the subject's flatten function gives."""
        dims = shapes.named(self.longest)
        cache = shapes.dynamic_shapes(lambda *sizes: self.cache(model, *sizes), batch, length, dims)
        return ({0: dims.batch}, cache, {}, *(({0: dims.batch},) if self.encodes else ()))


def step_of(name: str, suffix: str = "", longest: int = LONGEST, *, static: bool = False, **more: Any) -> ExportedStep:
    """A step of one of the models, with settings of its own (exporting takes a second a layer)."""
    tiny = BY_NAME[name]
    own = replace(tiny, name=f"{name}{suffix}", settings={**tiny.settings, **more})
    return ExportedStep(own.name, own, longest, static)


SLIDING: dict[str, Any] = {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}
CHUNKED: dict[str, Any] = {"num_hidden_layers": 1, "no_rope_layers": [1], "moe_layers": []}

EXPORTED = (
    # Every kind of attention, past its window or chunk: full, sliding, both, sliding with sinks, chunked; and decoders
    # with cross attention.
    step_of("llama", num_hidden_layers=1),
    step_of("mistral", num_hidden_layers=1),
    step_of("gemma3"),
    step_of("gpt-oss", **SLIDING),
    step_of("llama4", **CHUNKED),
    step_of("t5", num_layers=1),
    # Below a window of 32, and past the window in the static layers of a StaticCache.
    step_of("mistral", "-below", LONGEST_BELOW, sliding_window=WIDE, num_hidden_layers=1),
    step_of("mistral", "-static", static=True, num_hidden_layers=1),
)
# The same kinds of attention in other models: an opt-in category, since each export takes a second or more.
MORE_EXPORTED = (
    step_of("gpt2", n_layer=1),
    step_of("bart", decoder_layers=1),
    step_of("qwen2", num_hidden_layers=1),
    step_of("gemma2"),
    step_of("phi3", num_hidden_layers=1),
    step_of("whisper", decoder_layers=1),
    # State spaces, linear attention and convolutions, alone and beside attention: their states are written in place.
    step_of("mamba", num_hidden_layers=1),
    step_of("mamba2", num_hidden_layers=1),
    step_of("jamba"),
    step_of("bamba"),
    step_of("falcon-h1", num_hidden_layers=1),
    step_of("minimax"),
    step_of("qwen3-next"),
    step_of("lfm2"),
    # Below a window, or in the first chunk, of 32.
    step_of("gemma3", "-below", LONGEST_BELOW, sliding_window=WIDE, **SLIDING),
    step_of("gpt-oss", "-below", LONGEST_BELOW, sliding_window=WIDE, **SLIDING),
    step_of("llama4", "-below", LONGEST_BELOW, attention_chunk_size=WIDE, **CHUNKED),
    # Past the window, or over chunks, in the static layers of a StaticCache.
    step_of("gemma3", "-static", static=True, **SLIDING),
    step_of("gpt-oss", "-static", static=True, **SLIDING),
    step_of("llama4", "-static", static=True, **CHUNKED),
)


def expect_decodes_when_exported(step: ExportedStep) -> None:
    """Export a step, then decode with it at two other batches and lengths, beside the model itself."""
    model = step.tiny.build()
    module = step.module(model)
    trees.expect_registered(step.cache(model, 2, PROMPT), step.name)
    asked = step.dynamic_shapes(model, 2, PROMPT)
    program = expect_exportable(module, step.inputs(model, 2, PROMPT), asked, where=step.name)
    for batch, length in UNSEEN:
        expect_decodes(
            program,
            module,
            step.inputs(model, batch, length),
            functools.partial(_next_tokens, batch),
            steps=EXPORTED_STEPS,
            where=f"{step.name}, batch {batch}, length {length}",
        )


def _next_tokens(batch: int, step: int) -> torch.Tensor:
    return tokens(batch, 1, seed=step + 1)
