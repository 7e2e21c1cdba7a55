"""Which programs a model needs: one for each state that watched generations pass through and no program takes yet.

Below and past a sliding window a cache may have two structures, and the step that crosses between them a third size.
Where one program takes them all, one is exported. Each recorded call is run through the program that takes it, and
compared with what the model answered: a program that answers differently is an error, not a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform.export.compare import Difference, difference
from kvconform.export.errors import ExportError, NoProgramError, WatchError
from kvconform.export.exporting import Moves, export_step, moving
from kvconform.export.modules import Empty, EncoderModule, StepModule
from kvconform.export.plan import Plan, is_prefill, step_inputs
from kvconform.export.program import Program, Refusal
from kvconform.export.watch import Call, Watched

__all__ = ["Cover", "Programs", "module_for", "refuse_full", "step_name"]

Tell = Callable[[str], None]


@dataclass
class Programs:
    """Programs, and finding the one for some inputs."""

    all: list[Program] = field(default_factory=list)

    def of(self, kind: str) -> Iterator[Program]:
        """The programs of one kind."""
        return (program for program in self.all if program.kind == kind)

    def run(self, kind: str, inputs: dict[str, Any]) -> Any:
        """Run the first program that takes these inputs.

        Raises:
            NoProgramError: none does.
        """
        reasons = []
        for number, program in enumerate(self.of(kind), 1):
            if not program.takes(inputs):
                reasons.append(f"{kind} {number} takes {'; '.join(str(leaf) for leaf in program.leaves[:6])}")
                continue
            try:
                return program.run(inputs)
            except Refusal as refusal:
                reasons.append(f"{kind} {number}: {refusal}")
        shapes = ", ".join(f"{name} {_told(value)}" for name, value in inputs.items())
        raise NoProgramError(
            f"no {kind} program takes these inputs ({shapes}): {' | '.join(reasons) or 'there is none'}. Export with "
            "prompts of these lengths: export_decoder(model, lengths=[...])"
        )


def _told(value: Any) -> str:
    """A tensor by its type and shape, as `Leaf` tells what a program takes; anything else by its class."""
    if not hasattr(value, "shape"):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"


@dataclass
class Cover:
    """Programs that grow with what is asked of them.

    Attributes:
        model: the model.
        plan: how it is called.
        folder: where inputs are left when exporting fails.
        tell: told of each step.
        programs: what has been exported.
        moves: of each kind the dimensions of the leaves of its inputs that are dynamic.
        differences: of every step that was compared.
    """

    model: Any
    plan: Plan
    folder: Path | None = None
    tell: Tell = lambda _: None
    programs: Programs = field(default_factory=Programs)
    differences: list[Difference] = field(default_factory=list)
    moves: dict[str, Moves] = field(default_factory=dict)

    def learn(self, watched: list[Watched]) -> None:
        """Learn from generations of other sizes which dimensions move."""
        self.moves = {
            "prefill": moving([step_inputs(self.plan, one, 0) for one in watched]),
            "decode": moving([step_inputs(self.plan, one, at) for one in watched for at in range(1, len(one.calls))]),
            "encoder": moving([_encoder_inputs(self.plan, one.encoder) for one in watched if one.encoder]),
        }

    def add(self, watched: Watched, *, grow: bool = True) -> None:
        """Have every call of a generation answered by a program, and compare.

        Args:
            watched: the generation.
            grow: export where no program takes a call; otherwise that is an error.

        Raises:
            ExportError: an export fails, or a program answers differently from the model.
            NoProgramError: without `grow`, no program takes a call.
        """
        if watched.encoder is not None:
            inputs = _encoder_inputs(self.plan, watched.encoder)
            found = self._answer("encoder", inputs, grow=grow)
            expected = watched.encoder.outputs.last_hidden_state
            self._judge(difference(f"encoder, batch {watched.batch}", (found, None), (expected, None)))
        # The last step first: torch.export makes a size of 1 a constant, which a cache may have after one token.
        found_last_first = [self._compared(watched, at, grow=grow) for at in (0, *self._steps(watched)[::-1])]
        for found in sorted(found_last_first, key=lambda one: one[0]):
            self._judge(found[1])

    def _steps(self, watched: Watched) -> list[int]:
        """The calls that are decode steps. One that begins anew is a prefill, as those of longer prompts are.

        Raises:
            WatchError: a call begins anew, and the plan knows nothing of that.
        """
        anew = [at for at in range(1, len(watched.calls)) if is_prefill(watched, at, self.plan.ids)]
        if anew and self.plan.begins_anew is None:
            raise WatchError(
                f"generate() of this {type(self.model).__name__} computes all tokens again at step {anew[0]}, which "
                "no decode program does: export its steps with torch.export.export and exportable()"
            )
        return [at for at in range(1, len(watched.calls)) if at not in anew]

    def _compared(self, watched: Watched, at: int, *, grow: bool) -> tuple[int, Difference]:
        """The answer to one call of a generation beside the model's own."""
        call = watched.calls[at]
        kind = "decode" if at else "prefill"
        inputs = step_inputs(self.plan, watched, at)
        if kind == "prefill":
            inputs.pop(self.plan.cache)
        found = self._answer(kind, inputs, call, grow=grow)
        cache = getattr(call.outputs, self.plan.cache, None)
        if cache is None:
            raise WatchError(
                f"the {kind} of {type(self.model).__name__} returns no {self.plan.cache}, so that no step can follow: "
                "configure it as a decoder (is_decoder=True) that uses its cache"
            )
        expected = (call.outputs.logits, cache)
        return at, difference(step_name(watched, self.plan, at), found, expected)

    def _answer(self, kind: str, inputs: dict[str, Any], call: Call | None = None, *, grow: bool) -> Any:
        try:
            return self.programs.run(kind, inputs)
        except NoProgramError:
            if not grow:
                raise
        self.tell(f"exporting {kind}")
        self.programs.all.append(
            export_step(kind, module_for(self.model, self.plan, kind, call), inputs, self.moves[kind], self.folder)
        )
        return self.programs.run(kind, inputs)

    def _judge(self, found: Difference) -> None:
        self.differences.append(found)
        if not found.fine:
            raise ExportError(
                f"the exported program answers differently from the model. {found}. Run "
                "python -m kvconform doctor, and see docs/known-failures"
            )


def module_for(model: Any, plan: Plan, kind: str, call: Call | None) -> Any:
    """The module of one kind of step; of a prefill `call` gives the empty cache to begin with."""
    if kind == "encoder" or call is None:
        return EncoderModule(model.get_encoder(), plan.encoder)
    if kind == "prefill":
        return StepModule(model, plan, plan.prefill, _empty(plan, call), takes_cache=False)
    return StepModule(model, plan, plan.decode)


def _empty(plan: Plan, call: Call) -> Empty | None:
    """The cache that a prefill begins with, as its counters and structure; None where the model makes it itself.

    Raises:
        ExportError: it holds tensors, which a program cannot make at any batch size.
    """
    empty = call.inputs.get(plan.cache)
    if empty is None:
        return None
    leaves, spec = py_pytree.tree_flatten(empty)
    if _has_tensors(leaves):
        raise _full(empty)
    return leaves, spec


def _has_tensors(leaves: list[Any]) -> bool:
    """Whether a cache holds more than counters, which are the same at any batch size and length."""
    return any(isinstance(leaf, torch.Tensor) for leaf in leaves)


def refuse_full(watched: Watched) -> None:
    """Refuse a generation whose cache has a fixed length; since 4.56 it has its tensors after the first step only.

    Raises:
        ExportError: it has.
    """
    cache = watched.calls[0].inputs.get(watched.cache)
    fixed = [hasattr(layer, "max_cache_len") for layer in getattr(cache, "layers", ())]
    if any(fixed) or (cache is not None and _has_tensors(py_pytree.tree_leaves(cache))):
        raise _full(cache)


def _full(cache: Any) -> ExportError:
    return ExportError(
        f"generate() gives the first step a {type(cache).__name__} of a fixed length; a prefill is exported onto an "
        "empty cache. Choose a cache that grows: model.generation_config.cache_implementation = None"
    )


def _encoder_inputs(plan: Plan, call: Call | None) -> dict[str, Any]:
    return {} if call is None else {name: call.inputs[name].contiguous() for name in plan.encoder}


def step_name(watched: Watched, plan: Plan, at: int) -> str:
    """What messages call a step."""
    prompt = watched.calls[0].inputs[plan.ids].shape[1]
    return f"{f'decode step {at}' if at else 'prefill'}, batch {watched.batch}, {prompt} tokens of prompt"
