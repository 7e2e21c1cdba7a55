"""Prefills and decode steps of the models that people export, made to be exported.

With an attention mask of two dimensions, as `generate` gives one, or with none.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from kvconform.checks import shapes
from kvconform.checks.errors import ExpectationError, expect
from kvconform.checks.exporting import expect_program_equals_eager, export
from kvconform.checks.needs import Need, has
from kvconform_conformance.examples.models import BY_NAME
from kvconform_conformance.examples.tiny import TinyModel, chosen_by_model, tokens

EXAMPLE, UNSEEN = (2, 6), ((3, 9), (4, 5))
# Below this window a growing cache has one structure; a hybrid cache of 4.4x to 4.54 is as long.
WIDE, LONGEST = 32, 28
# A convolution as wide as this has more inputs than some of the prompts, and fewer than others.
BETWEEN = 7


class Masked(torch.nn.Module):
    """A model that takes tokens, a mask of every token so far, a cache or None, an encoder's output, and positions.

    The mask may be None. Positions are given to models that take them as `cache_position`.
    """

    def __init__(self, tiny: TinyModel, model: Any) -> None:
        super().__init__()
        self.model = model
        self.argument = tiny.argument
        self.encodes = tiny.encode is not chosen_by_model
        self.placed = "cache_position" in inspect.signature(model.forward).parameters

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None, cache: Any = None, encoded: Any = None, place: Any = None
    ) -> tuple[Any, Any]:
        """Logits and cache."""
        given: dict[str, Any] = {self.argument: cache, "use_cache": True}
        if self.encodes:
            given |= {"encoder_outputs": (encoded,), "decoder_input_ids": ids, "decoder_attention_mask": mask}
        else:
            given |= {"input_ids": ids, "attention_mask": mask}
        if place is not None and self.placed:
            given["cache_position"] = place
        output = self.model(**given)
        return output.logits, getattr(output, self.argument)


@dataclass(frozen=True)
class MaskedExport:
    """A model's prefill, or its decode step where `held`; with a mask where `masked`.

    `placed` gives the positions too, as `generate` does. The length is dynamic where it `grows`.
    """

    tiny: TinyModel
    held: bool
    placed: bool = False
    masked: bool = True
    grows: bool = True

    @property
    def name(self) -> str:
        """The model and what is asked of it."""
        return f"{self.tiny.name}-{'decode' if self.held else 'prefill'}"

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the model needs."""
        return self.tiny.needs

    def inputs(self, model: Any, batch: int, length: int) -> tuple[Any, ...]:
        """Tokens, and a mask that leaves the first token of every second row out, as padding."""
        count = 1 if self.held else length
        total = length + (1 if self.held else 0)
        mask = torch.ones(batch, total, dtype=torch.long)
        mask[1::2, 0] = 0
        cache = self.cache(model, batch, length) if self.held else self.tiny.start(model, batch)
        encoded = self.tiny.encode(model, batch).last_hidden_state if self.encodes else None
        place = torch.arange(total - count, total) if self.placed else None
        return tokens(batch, count, seed=1), mask if self.masked else None, cache, encoded, place

    @property
    def encodes(self) -> bool:
        """Whether the model is an encoder-decoder."""
        return self.tiny.encode is not chosen_by_model

    def cache(self, model: Any, batch: int, length: int) -> Any:
        """The cache after a prompt, its tensors contiguous: slices of longer ones make guards on their strides."""
        leaves, spec = pytree.tree_flatten(self.tiny.prefill(model, batch, length))
        whole = [leaf.contiguous() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        return pytree.tree_unflatten(whole, spec)

    def dynamic_shapes(self, model: Any) -> tuple[Any, ...]:
        """Batch and length dynamic, if it grows. The mask is as long as the cache and the new token."""
        dims = shapes.named(LONGEST)
        length = dims.length + 1 if self.held else dims.length
        build = self.cache if self.held else lambda model, batch, _: self.tiny.start(model, batch)
        return (
            {0: dims.batch} if self.held or not self.grows else {0: dims.batch, 1: dims.length},
            ({0: dims.batch, 1: length} if self.grows else {0: dims.batch}) if self.masked else None,
            shapes.dynamic_shapes(lambda *sizes: build(model, *sizes), *EXAMPLE, dims),
            {0: dims.batch} if self.encodes else None,
            {} if self.placed else None,
        )


MIXTRAL = TinyModel(
    "mixtral",
    "MixtralConfig",
    "MixtralForCausalLM",
    {
        **{name: value for name, value in BY_NAME["mistral"].settings.items() if name != "head_dim"},
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "full attention, experts",
)
_TINY: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}
# Models that sort their tokens by expert and cut them into pieces.
PIECES = (
    TinyModel(
        "granitemoe",
        "GraniteMoeConfig",
        "GraniteMoeForCausalLM",
        {**_TINY, "num_local_experts": 4, "num_experts_per_tok": 2},
        "full attention, experts",
    ),
    TinyModel(
        "jetmoe",
        "JetMoeConfig",
        "JetMoeForCausalLM",
        {
            **{name: value for name, value in _TINY.items() if name != "num_attention_heads"},
            "kv_channels": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        "full attention whose heads are experts, experts",
    ),
    TinyModel(
        "aria",
        "AriaTextConfig",
        "AriaTextForCausalLM",
        {**_TINY, "moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
        "full attention, experts",
    ),
    TinyModel(
        "deepseek-v2",
        "DeepseekV2Config",
        "DeepseekV2ForCausalLM",
        {
            **_TINY,
            "num_key_value_heads": 2,
            "first_k_dense_replace": 0,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_nope_head_dim": 4,
            "qk_rope_head_dim": 4,
            "v_head_dim": 4,
            "moe_intermediate_size": 12,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
        },
        "full attention, values of another width, experts",
    ),
)
# Since 5.0 a configuration chooses how experts are run, and this is the choice to loop over them; before it all do.
_LOOP = {"experts_implementation": "eager"}


def _scaling(kind: str, **more: Any) -> dict[str, Any]:
    """The settings of positions that are scaled past seven tokens; since 5.0 they hold their base too."""
    bases = {"rope_type": kind, "rope_theta": 10000.0} if _NAMES_BASES.met() else {}
    # "dynamic" is asked for by either name from 4.44 on, longrope of 4.x takes no other key.
    return {"rope_scaling": {"type": kind, **bases, **more}, "max_position_embeddings": LIMIT}


# Some of the prompts are longer than this, and others shorter.
LIMIT = 7
_NAMES_BASES = has("transformers.modeling_rope_utils:RotaryEmbeddingConfigMixin")
_LONGROPE = {
    **_scaling("longrope", short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[2.0, 3.0, 4.0, 5.0]),
    "original_max_position_embeddings": LIMIT,
    "max_position_embeddings": 4 * LIMIT,
}


def _of(tiny: TinyModel, **more: Any) -> tuple[MaskedExport, MaskedExport]:
    tiny = replace(tiny, settings={**tiny.settings, **more})
    return MaskedExport(tiny, held=False), MaskedExport(tiny, held=True)


_ONE: dict[str, Any] = {"num_hidden_layers": 1}
FAMILIES = (
    *_of(BY_NAME["llama"], **_ONE),
    *_of(BY_NAME["mistral"], sliding_window=WIDE, **_ONE),
    *_of(BY_NAME["qwen2"], **_ONE),
    *_of(BY_NAME["gemma2"], sliding_window=WIDE),
    *_of(BY_NAME["gemma3"], sliding_window=WIDE),
    *_of(BY_NAME["phi3"], **_ONE),
    *_of(MIXTRAL, sliding_window=None, **_ONE),
    *_of(BY_NAME["t5"], num_layers=1),
    *_of(BY_NAME["bart"], decoder_layers=1),
    *_of(BY_NAME["whisper"], decoder_layers=1),
    *_of(BY_NAME["gpt2"], n_layer=1),
)
"""Prefill and decode step of the families that every release with patches has to export, with a mask and without."""
UNMASKED = tuple(replace(one, masked=False) for one in FAMILIES)
MASKED = (
    *FAMILIES,
    *_of(replace(MIXTRAL, name="mixtral-loop"), sliding_window=None, **_LOOP, **_ONE),
    *(MaskedExport(tiny, held) for tiny in PIECES for held in (False, True)),
    # Positions whose frequencies depend on the length.
    *_of(replace(BY_NAME["llama"], name="llama-dynamic"), **_scaling("dynamic", factor=2.0), **_ONE),
    *_of(replace(BY_NAME["phi3"], name="phi3-longrope"), **_LONGROPE, **_ONE),
    # Convolutions and state spaces.
    MaskedExport(BY_NAME["lfm2"], held=True),
    MaskedExport(BY_NAME["bamba"], held=True, placed=True),
    MaskedExport(BY_NAME["falcon-h1"], held=True, placed=True),
    # Prompts shorter than the convolution is wide, and longer ones.
    *_of(BY_NAME["lfm2"], conv_L_cache=BETWEEN)[:1],
    *_of(BY_NAME["mamba"], conv_kernel=BETWEEN, **_ONE)[:1],
    # Where a chunk ends is a condition on the length that torch.export does not prove for a range.
    MaskedExport(BY_NAME["bamba"], held=False, placed=True, grows=False),
)


def expect_exports(asked: MaskedExport) -> None:
    """Export with batch and length dynamic, and equal eager at two sizes that the export did not see.

    A length that does not grow is the same in all.
    """
    model = asked.tiny.build()
    # A model may remember the longest sequence that it has seen (positions that are scaled by length), no program does.
    new = copy.deepcopy(model)
    program = export(
        Masked(asked.tiny, model), asked.inputs(model, *EXAMPLE), asked.dynamic_shapes(model), where=asked.name
    )
    # The one that was exported is asked first: it may not have been changed by that.
    for (batch, unseen), eager in zip(UNSEEN, (model, new), strict=True):
        length = unseen if asked.grows else EXAMPLE[1]
        expect_program_equals_eager(
            program,
            Masked(asked.tiny, eager),
            asked.inputs(eager, batch, length),
            where=f"{asked.name}, batch {batch}, length {length}",
        )


class Variadic(torch.nn.Module):
    """Llama with its mask among the inputs that have no parameter of their name, as `TransformersKwargs` has none."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.model(input_ids=input_ids, use_cache=False, **kwargs).logits
        return logits


def expect_exports_with_variadic_keywords(*, nested: bool) -> None:
    """Export with the shape of such an input under its name, or `nested` under that of `**kwargs`; as above then."""
    asked = FAMILIES[0]
    module = Variadic(asked.tiny.build())

    def given(batch: int, length: int) -> dict[str, torch.Tensor]:
        ids, mask, *_ = asked.inputs(module.model, batch, length)
        return {"attention_mask": mask, "input_ids": ids}

    of_ids, of_mask, *_ = asked.dynamic_shapes(module.model)
    of_more = {"attention_mask": of_mask}
    shapes_asked = {"input_ids": of_ids, **({"kwargs": of_more} if nested else of_more)}
    try:
        program = torch.export.export(module, (), given(*EXAMPLE), dynamic_shapes=shapes_asked, strict=False)
        found = [(program.module()(**given(*sizes)), module(**given(*sizes))) for sizes in UNSEEN]
    except Exception as error:
        raise ExpectationError(
            f"torch.export or its program raised {error}, expected logits [{shapes_asked}]"
        ) from error
    for sizes, (got, expected) in zip(UNSEEN, found, strict=True):
        expect(torch.allclose(got, expected, atol=1e-5), "the program differs from eager", str(sizes))
