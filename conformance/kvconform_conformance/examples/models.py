"""Tiny random models, made from configurations: nothing is downloaded.

Windows are 4 tokens, so that a few steps pass them.
"""

from __future__ import annotations

from typing import Any

from kvconform_conformance.examples.tiny import (
    VOCABULARY,
    Start,
    TinyModel,
    chosen_by_model,
    encode_features,
    encode_tokens,
    encoder_decoder,
    hybrid,
    own_class,
    tokens,
)

__all__ = ["BY_NAME", "DECODERS", "MODELS", "TinyModel", "tokens"]

WINDOW = 4
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


def _decoder(name: str, stem: str, about: str = "", start: Start = chosen_by_model, **more: Any) -> TinyModel:
    settings = {**_DECODER, **more}
    return TinyModel(name, f"{stem}Config", f"{stem.removesuffix('Text')}ForCausalLM", settings, about, start)


def sliding_decoder(name: str, about: str, window: int) -> TinyModel:
    """Mistral with another window, under another name."""
    return _decoder(name, "Mistral", about, sliding_window=window)


_LAYERS = ["sliding_attention", "full_attention"]
DECODERS = (
    _decoder("llama", "Llama", "full attention"),
    _decoder("mistral", "Mistral", "sliding window 4 in every layer", sliding_window=WINDOW),
    _decoder("qwen2", "Qwen2", "full attention"),
    _decoder("gemma2", "Gemma2", "sliding and full attention", hybrid, sliding_window=WINDOW),
    _decoder(
        "gemma3",
        "Gemma3Text",
        "sliding and full attention",
        hybrid,
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
        "llama4",
        "Llama4Text",
        "attention in chunks of 4, and full attention",
        attention_chunk_size=WINDOW,
        intermediate_size_mlp=24,
        no_rope_layers=[1, 0],
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
        "full attention, learned positions",
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
        "bart",
        "BartConfig",
        "BartForConditionalGeneration",
        _SEQUENCE,
        "encoder and decoder",
        encoder_decoder,
        encode_tokens,
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
        "encoder and decoder, relative positions",
        encoder_decoder,
        encode_tokens,
    ),
    TinyModel(
        "whisper",
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        {**_SEQUENCE, "num_mel_bins": 4, "max_source_positions": 5, "max_target_positions": 128},
        "encoder of a spectrogram, and decoder",
        encoder_decoder,
        encode_features,
    ),
)
_STATES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "state_size": 4,
    "conv_kernel": 4,
    "expand": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
STATE_SPACES = (
    TinyModel(
        "mamba",
        "MambaConfig",
        "MambaForCausalLM",
        {**_STATES, "time_step_rank": 2},
        "state space in every layer",
        argument="cache_params",
    ),
    TinyModel(
        "mamba2",
        "Mamba2Config",
        "Mamba2ForCausalLM",
        {**_STATES, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
        "state space in every layer",
        argument="cache_params",
    ),
)
_HYBRID_CACHE = "HybridMambaAttentionDynamicCache"
HYBRIDS = (
    TinyModel(
        "jamba",
        "JambaConfig",
        "JambaForCausalLM",
        {
            **{name: value for name, value in _DECODER.items() if name != "head_dim"},
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "mamba_d_state": 4,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_dt_rank": 2,
            "use_mamba_kernels": False,
        },
        "state space and full attention",
        own_class(f"transformers.models.jamba.modeling_jamba:{_HYBRID_CACHE}"),
    ),
    TinyModel(
        "bamba",
        "BambaConfig",
        "BambaForCausalLM",
        {
            **_DECODER,
            "attn_layer_indices": [1],
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_n_groups": 1,
            "mamba_d_state": 4,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_chunk_size": 4,
        },
        "state space and full attention",
        own_class(f"transformers.models.bamba.modeling_bamba:{_HYBRID_CACHE}"),
    ),
    TinyModel(
        "falcon-h1",
        "FalconH1Config",
        "FalconH1ForCausalLM",
        {
            **_DECODER,
            "mamba_d_ssm": 16,
            "mamba_n_heads": 2,
            "mamba_d_head": 8,
            "mamba_n_groups": 1,
            "mamba_d_state": 4,
            "mamba_d_conv": 4,
            "mamba_expand": 1,
            "mamba_chunk_size": 4,
        },
        "state space and full attention, both in every layer",
        own_class("transformers.models.falcon_h1.modeling_falcon_h1:FalconHybridMambaAttentionDynamicCache"),
    ),
    _decoder(
        "minimax",
        "MiniMax",
        "lightning and full attention",
        layer_types=["linear_attention", "full_attention"],
        num_local_experts=2,
        num_experts_per_tok=1,
        block_size=4,
    ),
)
MODELS = (*DECODERS, *ENCODER_DECODERS, *STATE_SPACES, *HYBRIDS)
BY_NAME = {model.name: model for model in MODELS}
