"""Every architecture of the installed release, as a tiny model: no list stands here, the auto mappings are asked.

What cannot be made, cannot generate, or generates without a cache is known before any subject runs, and is told as
what the release lacks.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform.checks import trees
from kvconform.checks.errors import ExpectationError, expect
from kvconform.checks.needs import NotApplicableError
from kvconform.errors import KVConformError
from kvconform.export.architectures import Architecture, architectures
from kvconform.export.compare import difference, tolerance_of
from kvconform.export.cover import module_for, step_name
from kvconform.export.exporting import export_step, moving
from kvconform.export.modules import StepModule
from kvconform.export.plan import Plan, learn, step_inputs
from kvconform.export.program import Program, Refusal
from kvconform.export.prompts import make_prompt, text_config, windows
from kvconform.export.tiny import make_tiny_of
from kvconform.export.watch import Watched, generation_class, watch

__all__ = ["Asked", "all_architectures", "expect_decodes_on", "expect_exports"]

_MAPPINGS = ("MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING")
STEPS = 2
# Rows and tokens of the prompts: one is exported with, the others are not. The tiny windows are 8 tokens.
EXPORTED, UNSEEN, PAST = (2, 4), ((3, 5), (4, 3)), (1, 13)


@dataclass(frozen=True)
class Generations:
    """A tiny model, and what it was called with while it generated.

    Attributes:
        model: the model.
        exported: the generation that programs are exported from.
        unseen: generations of other batches and lengths.
        past: one that begins past every window.
    """

    model: Any
    exported: Watched
    unseen: tuple[Watched, ...]
    past: Watched

    @property
    def cache(self) -> str:
        """What the model calls its cache."""
        return self.exported.cache

    @cached_property
    def plan(self) -> Plan:
        """How the model is called.

        Raises:
            WatchError: an input follows no known rule.
        """
        return learn([self.exported, *self.unseen])

    @property
    def has_windows(self) -> bool:
        """Whether a program of short lengths may refuse longer ones: past a window, or a chunk of a state's scan."""
        config = text_config(self.model)
        chunks = [getattr(config, name, None) for name in ("chunk_size", "mamba_chunk_size")]
        return bool(windows(self.model) or any(chunks))


@dataclass(frozen=True)
class Asked:
    """One architecture, as the checks ask it."""

    architecture: Architecture

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.architecture.name

    @property
    def needs(self) -> tuple[Asked, ...]:
        """What the checks need is the model itself, and that it generates with a cache."""
        return (self,)

    def require(self) -> None:
        """Make the model and let it generate.

        Raises:
            NotApplicableError: it cannot be made or does not generate with a cache; with the config's own reason.
        """
        reason = self.generations
        if isinstance(reason, str):
            raise NotApplicableError(reason)

    @property
    def generations(self) -> Generations | str:
        """The model and its generations, or why there are none; those of the last architecture are kept."""
        if self.name not in _KEPT:
            _KEPT.clear()
            _KEPT[self.name] = _made(self.architecture)
        return _KEPT[self.name]

    @property
    def made(self) -> Generations:
        """The same, where `require` has been asked."""
        found = self.generations
        assert not isinstance(found, str)
        return found


_KEPT: dict[str, Generations | str] = {}


def all_architectures() -> list[Asked]:
    """The causal and the sequence-to-sequence models of this release, in its own order."""
    return [Asked(one) for one in architectures(_MAPPINGS)]


def _made(architecture: Architecture) -> Generations | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = make_tiny_of(architecture.config_class(), architecture.model_class())
            if not isinstance(model, generation_class()):
                return f"{architecture.name} does not generate: it is no GenerationMixin on this release"
            first, *others, past = (
                watch(model, make_prompt(model, batch, length, padding=min(1, length - 1), seed=length), STEPS)
                for batch, length in (EXPORTED, *UNSEEN, PAST)
            )
            found = Generations(model, first, tuple(others), past)
            cache = found.cache
        except KVConformError as error:
            return f"{type(error).__name__}: {error}"
    if getattr(first.calls[0].outputs, cache, None) is None:
        return f"{architecture.name} returns no cache: its output has no {cache}"
    return found


def expect_decodes_on(one: Generations) -> None:
    """Prove that the model decodes to the same logits with a cache that went through a round trip before each step."""
    __tracebackhide__ = True
    for watched in (one.exported, one.past):
        carried = copy.deepcopy(watched.calls[1].inputs[one.cache])
        for at in range(1, len(watched.calls)):
            call, where = watched.calls[at], f"step {at}, batch {watched.batch}"
            restored = trees.round_trip(carried, where)
            with torch.no_grad():
                output = one.model(**{**copy.deepcopy(call.inputs), one.cache: restored})
            apart = float((output.logits - call.outputs.logits).abs().max())
            limit = tolerance_of(call.outputs.logits)
            expect(apart <= limit, f"logits differ by {apart:.3g}, expected at most {limit:g}", where)
            carried = getattr(output, one.cache)


def expect_exports(one: Generations, kind: str) -> None:
    """Prove that a program of one size answers as the model does at sizes that it was not exported with.

    Past a window the cache may have another structure, which a program may refuse; a wrong answer it may not give.

    Args:
        one: the model.
        kind: "prefill", or "decode": then the last step is exported, and every step is run.
    """
    __tracebackhide__ = True
    try:
        program = _exported(one, kind)
    except KVConformError as error:
        raise ExpectationError(f"{type(error).__name__}: {error}") from error
    for watched in (one.exported, *one.unseen):
        for at in _steps(watched, kind):
            _expect_right(one, program, watched, at, may_refuse=False)
    for at in _steps(one.past, kind):
        _expect_right(one, program, one.past, at, may_refuse=one.has_windows)


def _exported(one: Generations, kind: str) -> Program:
    at = _steps(one.exported, kind)[-1]
    seen = [
        _inputs(one.plan, watched, step) for watched in (one.exported, *one.unseen) for step in _steps(watched, kind)
    ]
    inputs = _inputs(one.plan, one.exported, at)
    if one.cache in inputs:
        module: Any = StepModule(one.model, one.plan, one.plan.decode if at else one.plan.prefill)
    else:
        module = module_for(one.model, one.plan, kind, one.exported.calls[at])
    return export_step(kind, module, inputs, moving(seen), None)


def _steps(watched: Watched, kind: str) -> range:
    return range(1) if kind == "prefill" else range(1, len(watched.calls))


def _inputs(plan: Plan, watched: Watched, at: int) -> dict[str, Any]:
    inputs = step_inputs(plan, watched, at)
    if at == 0 and not _begins_with_tensors(plan, watched):
        del inputs[plan.cache]
    return inputs


def _begins_with_tensors(plan: Plan, watched: Watched) -> bool:
    """Whether `generate()` gives the first step a cache with tensors in it: states of zeros, for which a prefill asks.

    Such a cache is an input of the prefill, as it is of a decode step.
    """
    cache = watched.calls[0].inputs.get(plan.cache)
    return cache is not None and any(isinstance(leaf, torch.Tensor) for leaf in py_pytree.tree_leaves(cache))


def _expect_right(one: Generations, program: Program, watched: Watched, at: int, *, may_refuse: bool) -> None:
    __tracebackhide__ = True
    inputs, where = _inputs(one.plan, watched, at), step_name(watched, one.plan, at)
    if may_refuse and not program.takes(inputs):
        return
    try:
        found = program.run(inputs)
    except Refusal as error:
        expect(may_refuse, f"the program refuses: {error}", where)
        return
    output = watched.calls[at].outputs
    result = difference(where, found, (output.logits, getattr(output, one.plan.cache)))
    expect(result.fine, str(result))
