"""An exported model beside the model itself, step by step: the programs are fed the cache that they returned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from kvconform.export.compare import Difference, difference
from kvconform.export.cover import step_name
from kvconform.export.decoder import ExportedDecoder
from kvconform.export.plan import is_prefill, step_inputs
from kvconform.export.watch import watch

__all__ = ["compare_steps"]


def compare_steps(
    model: Any, exported: ExportedDecoder, prompt: dict[str, torch.Tensor], steps: int
) -> Iterator[Difference]:
    """Let a model generate, give the programs the same tokens, and compare each step.

    Args:
        model: the model.
        exported: its programs.
        prompt: keyword arguments of `generate()`.
        steps: tokens after the first.

    Yields:
        The difference of the encoder if there is one, of the prefill, and of each decode step.

    Raises:
        NoProgramError: no program takes a step.
    """
    with exported.within(), torch.no_grad():
        watched = watch(model, prompt, steps)
    plan, programs = exported.plan, exported.programs
    encoded = None
    if watched.encoder is not None:
        with exported.within(), torch.no_grad():
            encoded = programs.run("encoder", {name: watched.encoder.inputs[name] for name in plan.encoder})
        expected = watched.encoder.outputs.last_hidden_state
        yield difference(f"encoder, batch {watched.batch}", (encoded, None), (expected, None))
    cache = None
    for at, call in enumerate(watched.calls):
        whole = is_prefill(watched, at, plan.ids)
        kind, phase = ("prefill", plan.prefill) if whole else ("decode", plan.decode)
        # Entered anew for each step: nothing stays registered while a caller looks at a difference.
        with exported.within(), torch.no_grad():
            inputs = step_inputs(plan, watched, at)
            del inputs[plan.cache]
            inputs |= {name: encoded for name, rule in phase.rules.items() if rule == "encoded"}
            logits, cache = programs.run(kind, inputs | ({} if whole else {plan.cache: cache}))
            one = difference(
                step_name(watched, plan, at), (logits, cache), (call.outputs.logits, getattr(call.outputs, plan.cache))
            )
        yield one
