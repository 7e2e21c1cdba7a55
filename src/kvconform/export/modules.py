"""The modules that are exported: a model as a function of its inputs by name, giving logits and cache."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform.export.plan import Phase, Plan

__all__ = ["Empty", "EncoderModule", "StepModule"]

Empty = tuple[list[Any], Any]
"""A cache that holds no tensor: its counters, and its tree spec."""


def _signed(function: Any, names: tuple[str, ...]) -> Any:
    """A function of keyword arguments whose signature names them: torch.export reads the names of inputs there.

    A signature with `**kwargs` gives dynamic shapes as a dict another nesting on torch 2.7 to 2.9
    (pytorch/pytorch#164313).
    """
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]

    def forward(*args: Any, **kwargs: Any) -> Any:
        return function(dict(zip(names, args, strict=False)) | kwargs)

    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward


class StepModule(torch.nn.Module):
    """A prefill or a decode step: the tensors of a phase, and the cache unless it is made here; logits and cache out.

    Args:
        model: a model of transformers.
        plan: how it is called.
        phase: which of its calls.
        empty: the empty cache to begin with; None where the model makes its cache, or it is an input.
        takes_cache: whether the cache is an input.
    """

    def __init__(
        self, model: Any, plan: Plan, phase: Phase, empty: Empty | None = None, *, takes_cache: bool = True
    ) -> None:
        super().__init__()
        self.model = model
        self.plan = plan
        self.phase = phase
        self.empty = empty
        self.names = (*phase.rules, *([plan.cache] if takes_cache else []))
        self.forward = _signed(self._run, self.names)

    def _run(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Logits of shape (batch, tokens that logits were asked for, vocabulary), and the cache with these tokens."""
        given = dict(inputs)
        if self.empty is not None:
            given[self.plan.cache] = py_pytree.tree_unflatten(*self.empty)
        if "encoder_outputs" in given:
            given["encoder_outputs"] = self.plan.encoded_as(given["encoder_outputs"])
        output = self.model(**given, **self.phase.settings)
        return output.logits, getattr(output, self.plan.cache)


class EncoderModule(torch.nn.Module):
    """An encoder: its tensors in, its last hidden state out."""

    def __init__(self, encoder: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.names = names
        self.forward = _signed(self._run, names)

    def _run(self, inputs: dict[str, Any]) -> torch.Tensor:
        hidden: torch.Tensor = self.encoder(**inputs, return_dict=True).last_hidden_state
        return hidden
