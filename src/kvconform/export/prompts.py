"""Prompts made from a model's configuration: no tokenizer, nothing downloaded."""

from __future__ import annotations

from typing import Any

import torch

from kvconform.export.errors import WatchError

__all__ = ["make_prompt", "switch", "text_config", "text_part", "windows"]


def text_config(model: Any) -> Any:
    """The part of a model's configuration that its decoder reads."""
    return text_part(model.config)


def text_part(config: Any) -> Any:
    """The part of a configuration that the decoder reads; 4.44 has no such method and no such parts.

    T5Gemma of 4.53 gives its whole configuration, which has no vocabulary: its decoder's has.
    """
    part = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return part if hasattr(part, "vocab_size") else getattr(part, "decoder", part)


def make_prompt(model: Any, batch: int, length: int, *, padding: int = 0, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tokens, none of them special, or random features for a model of speech.

    Args:
        model: a model of transformers that generates.
        batch: rows.
        length: tokens; a model of speech has a length of its own.
        padding: tokens of padding on the left of the first row.
        seed: of the random numbers.

    Returns:
        Keyword arguments for `generate()`: `input_ids` and `attention_mask` of shape (batch, length), or
        `input_features` of shape (batch, mel bins, frames).

    Raises:
        WatchError: the model takes something else.
    """
    generator = torch.Generator().manual_seed(seed)
    if model.main_input_name == "input_features" and hasattr(model.config, "num_mel_bins"):
        features = torch.randn(batch, model.config.num_mel_bins, _frames(model), generator=generator)
        return {"input_features": features.to(model.device, model.dtype)}
    if model.main_input_name != "input_ids":
        raise WatchError(
            f"{type(model).__name__} begins with {model.main_input_name!r}, for which no prompt can be made here: give "
            "two of other batch sizes, export_decoder(model, prompts=[{...}, {...}])"
        )
    special = _special(model)
    allowed = torch.tensor([token for token in range(text_config(model).vocab_size) if token not in special])
    ids = allowed[torch.randint(0, len(allowed), (batch, length), generator=generator)]
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    pad = getattr(model.generation_config, "pad_token_id", None)
    ids[0, :padding] = 0 if pad is None else pad
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def windows(model: Any) -> list[int]:
    """The sizes of a model's sliding windows and chunks, smallest first: there the structure of a cache changes."""
    config = text_config(model)
    found = {getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")}
    return sorted(size for size in found if isinstance(size, int) and size > 0)


def switch(model: Any) -> int | None:
    """The length past which positions have other frequencies (longrope); None where there is none.

    Phi-3 drops its cache there and computes every token again. Whether a model does is seen by
    `kvconform.export.watch.begins_anew`.
    """
    config, name = text_config(model), "original_max_position_embeddings"
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    size = getattr(config, name, None) or scaling.get(name)
    kind = scaling.get("rope_type", scaling.get("type"))
    return size if kind == "longrope" and isinstance(size, int) else None


def _frames(model: Any) -> int:
    """Frames of a spectrogram that the encoder's convolutions shrink to its number of positions."""
    encoder = model.get_encoder()
    strides = [module.stride[0] for module in encoder.modules() if isinstance(module, torch.nn.Conv1d)]
    frames = int(model.config.max_source_positions)
    for stride in strides:
        frames *= stride
    return frames


def _special(model: Any) -> set[int]:
    """Token ids that mean something: padding, beginnings, ends."""
    found: set[int] = set()
    for config in (model.config, text_config(model), model.generation_config):
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            value = getattr(config, name, None)
            found.update(value if isinstance(value, (list, tuple)) else [] if value is None else [value])
    return found
