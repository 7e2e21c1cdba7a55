"""Tiny random models, made from configurations: nothing is downloaded.

Windows are 4 tokens, so that a few steps pass them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from kvconform.checks.needs import Need, has, lookup

VOCABULARY, WINDOW = 32, 4
_DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}


@dataclass(frozen=True)
class TinyModel:
    """A model class with the settings of a tiny configuration."""

    name: str
    config: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    encoder: bool = False
    about: str = ""

    @property
    def needs(self) -> tuple[Need, ...]:
        """The release has both classes. Asking imports the modelling module.

        Which registers its outputs for good, before any subject.
        """
        classes = (has(f"transformers:{self.config}"), has(f"transformers:{self.model}"))
        return (*classes, Need(self._returns_cache, f"{self.model} of this release returns no Cache"))

    def _returns_cache(self) -> bool:
        model = self.build()
        # Before every model took caches, a class attribute told which did; the others fail on one in many ways.
        takes = getattr(model, "_supports_cache_class", True)
        return bool(takes) and isinstance(self.prefill(model), lookup("transformers.cache_utils:Cache"))

    def encode(self, model: Any, batch: int = 2) -> Any:
        """The encoder's output, which runs once; ``None`` for a decoder."""
        return model.get_encoder()(tokens(batch, 5, seed=9)) if self.encoder else None

    def prefill(self, model: Any, batch: int = 2, length: int = 6) -> Any:
        """The cache after a prompt; a decoder chooses its class, unless it would return tuples."""
        dynamic = lookup("transformers.cache_utils:DynamicCache")
        if self.encoder:
            cache = lookup("transformers.cache_utils:EncoderDecoderCache")(dynamic(), dynamic())
        else:
            cache = dynamic() if self.name == "gpt2" else None
        return model(**self.step(tokens(batch, length), cache, self.encode(model, batch))).past_key_values

    def step(self, ids: torch.Tensor, cache: Any, encoded: Any) -> dict[str, Any]:
        """What a step is called with."""
        if not self.encoder:
            return {"input_ids": ids, "past_key_values": cache, "use_cache": True}
        return {"encoder_outputs": encoded, "decoder_input_ids": ids, "past_key_values": cache, "use_cache": True}

    def build(self) -> Any:
        """The model, with the same random weights every time."""
        torch.manual_seed(0)
        config = lookup(f"transformers:{self.config}")(**self.settings)
        model = lookup(f"transformers:{self.model}")(config)
        return model.eval().requires_grad_(requires_grad=False)


def _decoder(name: str, stem: str, about: str = "", **more: Any) -> TinyModel:
    return TinyModel(
        name, f"{stem}Config", f"{stem.removesuffix('Text')}ForCausalLM", {**_DECODER, **more}, about=about
    )


_LAYERS = ["sliding_attention", "full_attention"]
DECODERS = (
    _decoder("llama", "Llama", "full attention"),
    _decoder("mistral", "Mistral", "sliding window 4 in every layer", sliding_window=WINDOW),
    _decoder("qwen2", "Qwen2", "full attention"),
    _decoder("gemma2", "Gemma2", "sliding and full attention", sliding_window=WINDOW),
    _decoder(
        "gemma3",
        "Gemma3Text",
        "sliding and full attention",
        sliding_window=WINDOW,
        layer_types=_LAYERS,
        sliding_window_pattern=2,
    ),
    _decoder("phi3", "Phi3", "full attention", sliding_window=None),
    _decoder(
        "gpt-oss",
        "GptOss",
        "sliding and full attention, sinks",
        sliding_window=WINDOW,
        layer_types=_LAYERS,
        num_local_experts=2,
        num_experts_per_tok=1,
    ),
    _decoder(
        "qwen3-next",
        "Qwen3Next",
        "linear and full attention",
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=1,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
    ),
    _decoder(
        "lfm2", "Lfm2", "convolution and full attention", layer_types=["conv", "full_attention"], block_multiple_of=8
    ),
    TinyModel(
        "gpt2",
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "vocab_size": VOCABULARY,
            "n_embd": 16,
            "n_head": 2,
            "n_layer": 2,
            "n_positions": 128,
            "attn_implementation": "eager",
        },
        about="full attention, learned positions",
    ),
)
_SEQUENCE = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "attn_implementation": "eager",
}
ENCODER_DECODERS = (
    TinyModel(
        "bart", "BartConfig", "BartForConditionalGeneration", _SEQUENCE, encoder=True, about="encoder and decoder"
    ),
    TinyModel(
        "t5",
        "T5Config",
        "T5ForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 16,
            "num_layers": 2,
            "num_heads": 2,
            "decoder_start_token_id": 0,
            "pad_token_id": 0,
        },
        encoder=True,
        about="encoder and decoder, relative positions",
    ),
)
MODELS = (*DECODERS, *ENCODER_DECODERS)
# Exporting takes seconds a model: one of each kind of attention.
EXPORTED = tuple(model for model in DECODERS if model.name in {"llama", "mistral", "gemma3"})


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Token ids of shape ``(batch, length)``, none of them special."""
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


class DecodeStep(torch.nn.Module):
    """A causal model with the cache as input and output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, cache: Any, position: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """One step at ``position``; the position ids are given, as every exporter gives them."""
        output = self.model(
            input_ids=input_ids, position_ids=position.unsqueeze(0), past_key_values=cache, use_cache=True
        )
        return output.logits, output.past_key_values
