"""The recurrence of Mamba over the tokens of a prompt, while it is traced.

`mamba_selective_scan` (5.15 and later; Mamba, FalconMamba, Jamba, Zamba) goes through the tokens in a loop of Python,
which a program unrolls: it takes prompts as long as its example alone. Here an operator of torch, `scan`, stands for
the loop, and the program repeats it for as many tokens as there are: the same products in the same order.

It is a higher-order operator: with torch 2.15 the loaded program, AOTInductor and `torch.onnx.export` take it. A prompt
whose length is not dynamic is unrolled as before. Releases before 5.15 have their loop inside a longer method, which
this does not reach. Dynamo (a strict export, torch.compile) traces the model as it is.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from kvconform.patches.of_models import in_loaded_modules, source_of
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable

__all__ = ["PATCH"]

_SCAN = "mamba_selective_scan"
_ASKED = "mamba"
"""The model whose source the probe reads."""
_OPERATOR = "torch._higher_order_ops.scan"


def _probe() -> Answer:
    if importlib.util.find_spec("transformers") is None:
        return not_applicable("transformers is not installed")
    if f"def {_SCAN}(" not in (source_of(_ASKED) or ""):
        return not_applicable(f"no model of this release has its recurrence in a function of its own, {_SCAN}")
    if importlib.util.find_spec(_OPERATOR) is None:
        return not_applicable("this release of torch has no operator that repeats a step for each token")
    return needed("models of this release go through the tokens of a prompt in a loop of Python")


def _looping(original: Callable[..., Any]) -> Callable[..., Any]:
    taken = inspect.signature(original)

    @functools.wraps(original)
    def selective_scan(hidden_states: torch.Tensor, *args: Any, **named: Any) -> Any:
        length: Any = hidden_states.shape[-1]
        if torch.compiler.is_dynamo_compiling() or not isinstance(length, torch.SymInt):
            return original(hidden_states, *args, **named)
        call = taken.bind(hidden_states, *args, **named)
        call.apply_defaults()
        given = call.arguments
        steps, bias = given["dt"], given["delta_bias"]
        steps = steps if bias is None else steps + bias.to(steps.dtype)[:, None]
        steps = torch.nn.functional.softplus(steps) if given["delta_softplus"] else steps
        found, state = _recurrence(hidden_states, steps, given["A"], given["B"], given["C"])
        found = found if given["D"] is None else found + hidden_states * given["D"][:, None]
        found = found if given["z"] is None else found * torch.nn.functional.silu(given["z"])
        return (found, state) if given["return_last_state"] else found

    return selective_scan


def _recurrence(
    inputs: torch.Tensor, steps: torch.Tensor, decays: torch.Tensor, writes: torch.Tensor, reads: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The recurrence h = exp(A dt) h + dt B x with y = C h, token by token.

    Args:
        inputs: x, of shape (batch, channels, tokens).
        steps: dt, of the same shape.
        decays: A, of shape (channels, states).
        writes: B, of shape (batch, states, tokens).
        reads: C, of the same shape.

    Returns:
        y, of shape (batch, channels, tokens), and the last h, of shape (batch, channels, states).
    """
    scan = importlib.import_module(_OPERATOR).scan
    kind = inputs.dtype
    kept = torch.exp(decays[:, None] * steps[..., None])
    added = steps[..., None] * writes.transpose(1, 2)[:, None].float() * inputs[..., None].float()
    first = torch.zeros_like(added[:, :, 0], dtype=torch.promote_types(kept.dtype, added.dtype))

    def step(state: torch.Tensor, token: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        keeps, adds, looks = token
        state = keeps * state + adds
        return state, torch.matmul(state.to(kind), looks[..., None])[..., 0]

    last, found = scan(step, first, (kept.movedim(2, 0), added.movedim(2, 0), reads.movedim(2, 0)), dim=0)
    return found.movedim(0, -1), last


def _of_module(module: ModuleType) -> tuple[Replacement, ...]:
    """The function of that name in the module of a model, which defines its own."""
    found = vars(module).get(_SCAN)
    own = ".modeling_" in module.__name__ and getattr(found, "__module__", None) == module.__name__
    return (Replacement(module, _SCAN, _looping),) if own else ()


PATCH = Patch(
    name="scan-of-tokens",
    replaces="mamba_selective_scan of transformers' Mamba, FalconMamba, Jamba and Zamba (5.15 and later), when traced",
    why="a loop of Python over the tokens of a prompt gives a program that takes prompts of the example's length alone",
    page="docs/known-failures/unrolled-prompts.md",
    probe=_probe,
    replacements=lambda: in_loaded_modules(_of_module),
    of_module=_of_module,
)
