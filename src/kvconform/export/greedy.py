"""Greedy generation through exported programs, token for token what `generate(do_sample=False)` gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kvconform.export.errors import NoProgramError
from kvconform.export.rules import State, rule_named

if TYPE_CHECKING:
    from kvconform.export.decoder import ExportedDecoder
    from kvconform.export.plan import Plan

__all__ = ["Settings", "generate", "settings_of"]


@dataclass(frozen=True)
class Settings:
    """What ends a row.

    Attributes:
        eos: the tokens that do.
        pad: fills a row that has ended, None where nothing ends one.
    """

    eos: tuple[int, ...]
    pad: int | None


def settings_of(model: Any) -> Settings:
    """Read them from a model's generation config.

    `generate()` pads with the first token that ends a row where no padding token is known.
    """
    config = model.generation_config
    eos = config.eos_token_id
    eos = eos.tolist() if isinstance(eos, torch.Tensor) else eos
    ends = tuple(eos if isinstance(eos, (list, tuple)) else [] if eos is None else [int(eos)])
    pad = config.pad_token_id
    return Settings(ends, int(pad) if pad is not None else ends[0] if ends else None)


def generate(
    exported: ExportedDecoder,
    inputs: torch.Tensor,
    attention_mask: torch.Tensor | None,
    max_new_tokens: int,
    on_token: Callable[[torch.Tensor], None],
) -> torch.Tensor:
    """The loop: prefill, then a decode step a token, until every row has ended. See `ExportedDecoder.generate`."""
    plan, settings = exported.plan, exported.settings
    inputs = inputs if inputs.is_floating_point() else inputs.long()
    prompt_mask = _mask_of(inputs, plan, settings) if attention_mask is None else attention_mask.long()
    _refuse(plan, inputs, prompt_mask)
    with torch.no_grad():
        state = _begin(exported, inputs, prompt_mask)
        tokens, cache = state.ids, None
        going = torch.ones(inputs.shape[0], dtype=torch.bool, device=inputs.device)
        ends = torch.tensor(settings.eos, dtype=torch.long, device=inputs.device)
        for step in range(max_new_tokens):
            if step and plan.begins_anew is not None and tokens.shape[1] == plan.begins_anew + 1:
                state, cache = State(tokens, state.mask, state.prompt_mask, state.encoded), None
            phase, kind = (plan.prefill, "prefill") if cache is None else (plan.decode, "decode")
            given = {name: rule_named(rule)(state) for name, rule in phase.rules.items()}
            logits, cache = exported.programs.run(kind, given | ({} if cache is None else {plan.cache: cache}))
            chosen = logits[:, -1].argmax(-1)
            if settings.pad is not None:
                chosen = torch.where(going, chosen, settings.pad)
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
            on_token(chosen)
            going = going & ~torch.isin(chosen, ends)
            if not going.any():
                break
            mask = torch.cat([state.mask, state.mask.new_ones((len(chosen), 1))], dim=1)
            state = State(chosen[:, None], mask, state.prompt_mask, state.encoded)
    return tokens


def _begin(exported: ExportedDecoder, inputs: torch.Tensor, prompt_mask: torch.Tensor) -> State:
    plan = exported.plan
    if not plan.encoder:
        return State(inputs, prompt_mask, prompt_mask)
    offered = {plan.source: inputs, "attention_mask": prompt_mask}
    encoded: Any = exported.programs.run("encoder", {name: offered[name] for name in plan.encoder})
    start = torch.tensor(plan.start, device=inputs.device).expand(inputs.shape[0], -1)
    return State(start, prompt_mask.new_ones(start.shape), prompt_mask, encoded)


def _refuse(plan: Plan, inputs: torch.Tensor, mask: torch.Tensor) -> None:
    """Refuse a prompt that the programs would answer, and otherwise than the model.

    Raises:
        NoProgramError: its mask has another shape, is padded on the right, or has padding that no program knows of.
    """
    features = inputs.is_floating_point()
    if not features and inputs.dim() != 2:  # noqa: PLR2004 - batch and tokens
        raise NoProgramError(f"a prompt has shape (batch, tokens), got {tuple(inputs.shape)}: add the batch, ids[None]")
    if features:
        return
    if mask.shape != inputs.shape:
        raise NoProgramError(
            f"the mask has shape {tuple(mask.shape)}, expected that of the prompt, {tuple(inputs.shape)}"
        )
    if mask.all():
        return
    if not (plan.padded or plan.takes_mask):
        raise NoProgramError(
            "the prompt is padded, and these programs were exported from prompts without padding, so that they know no "
            "mask: give export_decoder prompts of which one is padded on the left, or leave its prompts= out"
        )
    if not plan.encoder and not mask[:, -1].all():
        raise NoProgramError(
            "the prompt is padded on the right, where generation goes on: pad it on the left "
            "(tokenizer.padding_side = 'left')"
        )


def _mask_of(inputs: torch.Tensor, plan: Plan, settings: Settings) -> torch.Tensor:
    """The mask that `generate()` makes where none is given: padding is what the padding token is.

    Unless that token may end a row as well, the inputs are no tokens, or `generate()` of this model makes none.
    """
    ones = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
    if inputs.is_floating_point() or not plan.infers_mask or settings.pad is None or settings.pad in settings.eos:
        return ones
    return inputs.ne(settings.pad).long()
