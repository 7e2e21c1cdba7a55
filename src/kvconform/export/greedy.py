"""Greedy generation through exported programs, token for token what `generate(do_sample=False)` gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kvconform.export.rules import State, rule_named

if TYPE_CHECKING:
    from kvconform.export.decoder import ExportedDecoder

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
    prompt_mask = _mask_of(inputs, settings) if attention_mask is None else attention_mask
    with torch.no_grad():
        state = _begin(exported, inputs, prompt_mask)
        tokens, cache = state.ids, None
        going = torch.ones(inputs.shape[0], dtype=torch.bool, device=inputs.device)
        ends = torch.tensor(settings.eos, dtype=torch.long, device=inputs.device)
        for step in range(max_new_tokens):
            phase, kind = (plan.decode, "decode") if step else (plan.prefill, "prefill")
            given = {name: rule_named(rule)(state) for name, rule in phase.rules.items()}
            logits, cache = exported.programs.run(kind, given | ({plan.cache: cache} if step else {}))
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


def _mask_of(inputs: torch.Tensor, settings: Settings) -> torch.Tensor:
    """The mask that `generate()` makes where none is given: padding is what the padding token is.

    Unless that token may end a row as well, or the inputs are no tokens.
    """
    ones = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
    if inputs.is_floating_point() or settings.pad is None or settings.pad in settings.eos:
        return ones
    return inputs.ne(settings.pad).long()
