"""How a runner makes the inputs of a step: for each input the rule that explains what `generate()` gave.

A rule is a function of where a generation stands. The rule of an input is the first one that gives exactly what was
recorded, at every call of every watched `generate()`; prompts that are padded on the left tell the rules apart. An
input that no rule explains is an error, which names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from kvconform.export.errors import WatchError

__all__ = ["RULES", "State", "explain", "rule_named"]


@dataclass(frozen=True)
class State:
    """Where a generation stands before a step.

    Attributes:
        ids: the tokens of this step, shape (batch, new).
        mask: 1 for each token so far and 0 for padding, those of this step included, shape (batch, seen + new).
        prompt_mask: the mask that the prompt came with, of an encoder-decoder that of the encoder's input.
        encoded: the encoder's output, None without one.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    prompt_mask: torch.Tensor
    encoded: torch.Tensor | None = None

    @property
    def new(self) -> int:
        """Tokens of this step."""
        return int(self.ids.shape[1])

    @property
    def seen(self) -> int:
        """Tokens before this step."""
        return int(self.mask.shape[1]) - self.new


Rule = Callable[[State], Any]


def _ids(state: State) -> torch.Tensor:
    return state.ids


def _mask(state: State) -> torch.Tensor:
    return state.mask


def _prompt_mask(state: State) -> torch.Tensor:
    return state.prompt_mask


def _encoded(state: State) -> torch.Tensor | None:
    return state.encoded


def _positions(state: State) -> torch.Tensor:
    """Positions of this step's tokens, shape (new,)."""
    return torch.arange(state.seen, state.seen + state.new, device=state.ids.device)


def _position_row(state: State) -> torch.Tensor:
    return _positions(state)[None, :]


def _position_rows(state: State) -> torch.Tensor:
    return _position_row(state).expand(state.ids.shape[0], -1)


def _after_padding(filler: int) -> Rule:
    """Positions that count from the first token which is no padding; padding has position `filler`."""

    def rule(state: State) -> torch.Tensor:
        mask = state.mask.long()
        counted = (mask.cumsum(-1) - 1).masked_fill(mask == 0, filler)
        return counted[:, state.seen :]

    return rule


def _zeros(state: State) -> torch.Tensor:
    return torch.zeros_like(state.ids)


def _ones(state: State) -> torch.Tensor:
    return torch.ones_like(state.ids)


RULES: dict[str, Rule] = {
    "encoded": _encoded,
    "ids": _ids,
    "mask": _mask,
    "prompt mask": _prompt_mask,
    "positions": _positions,
    "position row": _position_row,
    "positions after padding, 1 there": _after_padding(1),
    "positions after padding, 0 there": _after_padding(0),
    "position rows": _position_rows,
    "zeros": _zeros,
    "ones": _ones,
}
"""By the name under which a manifest knows them."""

_FIRST = re.compile(r"the first (\d+) positions")


def rule_named(name: str) -> Rule:
    """The rule that a manifest knows under a name.

    Besides `RULES` there are the same first positions at every step, as many as a convolution is wide: Mamba asks them
    of 4.57 so.
    """
    first = _FIRST.fullmatch(name)
    if first is None:
        return RULES[name]
    count = int(first[1])
    return lambda state: torch.arange(count, device=state.ids.device)


def _first_positions(value: torch.Tensor) -> str:
    return f"the first {value.shape[0]} positions" if value.dim() == 1 else ""


def explain(name: str, seen: Iterable[tuple[State, torch.Tensor]]) -> str:
    """The name of the first rule that gives what was recorded.

    Args:
        name: the input.
        seen: where generations stood, and what the input was there.

    Raises:
        WatchError: no rule does.
    """
    observed = list(seen)
    for rule_name in (*RULES, *filter(None, [_first_positions(observed[0][1])])):
        if all(_same(rule_named(rule_name)(state), value) for state, value in observed):
            return rule_name
    shapes = ", ".join(f"{tuple(value.shape)} at token {state.seen}" for state, value in observed[:4])
    raise WatchError(
        f"no rule explains the input {name!r} that generate() gives (shapes {shapes}): the known ones are "
        f"{', '.join(RULES)}. Please report it with the name of the model's class"
    )


def _same(made: Any, value: torch.Tensor) -> bool:
    if not isinstance(made, torch.Tensor) or made.shape != value.shape or made.dtype != value.dtype:
        return False
    return torch.equal(made, value)
