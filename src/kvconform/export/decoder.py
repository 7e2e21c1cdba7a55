"""One call from a model to programs, and greedy generation through them.

exported = export_decoder(model)
tokens = exported.generate(input_ids, attention_mask=mask, max_new_tokens=64)
exported.save("folder")

exported = load_decoder("folder")          # in another process, without the model's code
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kvconform.export import bundle, greedy
from kvconform.export.compare import Difference
from kvconform.export.cover import Cover, Programs, Tell, refuse_full
from kvconform.export.errors import NoProgramError, WatchError
from kvconform.export.greedy import Settings
from kvconform.export.plan import Plan, learn
from kvconform.export.prompts import make_prompt, switch, windows
from kvconform.export.watch import STEPS, Call, Watched, begins_anew, infers_mask, watch
from kvconform.patches import applied, exportable

__all__ = ["ExportedDecoder", "GreedyWarning", "base_prompts", "export_decoder", "load_decoder"]

Prompt = dict[str, torch.Tensor]
Within = Callable[[], AbstractContextManager[Any]]


@dataclass
class ExportedDecoder:
    """The programs of a model.

    Attributes:
        plan: which inputs each step has, and how they follow from the tokens.
        programs: an encoder's if there is one, prefill and decode; more than one of a kind where the structure of the
            cache changes at a window.
        settings: the tokens that end a row, and what fills it up.
        made_by: the releases and the class that the programs come from.
        differences: how far each step was from the model when it was exported; empty after loading.
        within: the context in which programs are run, saved and loaded.
    """

    plan: Plan
    programs: Programs
    settings: Settings
    made_by: dict[str, str]
    differences: tuple[Difference, ...] = ()
    within: Within = exportable

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *,
        max_new_tokens: int = 20,
        on_token: Callable[[torch.Tensor], None] | None = None,
        **prompt: torch.Tensor,
    ) -> torch.Tensor:
        """Generate greedily, as `model.generate(inputs, do_sample=False, num_beams=1)` does.

        Args:
            inputs: token ids of shape (batch, tokens), padded on the left; features for a model of speech. By its own
                name too, so that `generate(**tokenizer(texts))` works.
            attention_mask: 1 for tokens and 0 for padding. If not given, what is the padding token is padding.
            max_new_tokens: stop after as many.
            on_token: called with each step's tokens, shape (batch,).
            prompt: `inputs` by the name that the model has for them: `input_ids`, `input_features`.

        Returns:
            Prompt and generated tokens, shape (batch, tokens); of an encoder-decoder what its decoder began with and
            the generated tokens.

        Raises:
            NoProgramError: no program takes the inputs of a step, or they would be answered otherwise than by the
                model: padding on the right, or any where no prompt with padding was exported.
        """
        given = prompt.pop(self.plan.source, None) if inputs is None else inputs
        if given is None or prompt:
            raise NoProgramError(
                f"generate() takes {self.plan.source} and attention_mask, got {', '.join(prompt) or 'nothing'}"
            )
        with self.within():
            return greedy.generate(self, given, attention_mask, max_new_tokens, on_token or (lambda _: None))

    def save(self, path: str | Path, *, share_weights: bool = True) -> Path:
        """Write a folder of .pt2 files, their weights and a `manifest.json`.

        Args:
            path: the folder.
            share_weights: the weights are written once, into `weights.safetensors`. Without, each .pt2 file has its
                own, and `torch.export.load` alone makes a program of it that runs.

        Raises:
            BundleError: the folder holds something else already.
        """
        with self.within():
            return bundle.save(self, Path(path), share_weights=share_weights)


def load_decoder(path: str | Path, *, within: Within = exportable) -> ExportedDecoder:
    """Load what `ExportedDecoder.save` wrote. Pickles in it are read with torch's safe unpickler only.

    Args:
        path: the folder.
        within: the context in which the programs are loaded and run, as in `export_decoder`.

    Raises:
        BundleError: it cannot run here; the message says why and what to do.
    """
    with within():
        plan, programs, settings, made_by = bundle.load(Path(path))
    return ExportedDecoder(plan, programs, settings, made_by, within=within)


def export_decoder(  # noqa: PLR0913 - each has a default
    model: Any,
    *,
    prompts: list[Prompt] | None = None,
    lengths: list[int] | None = None,
    failures: str | Path | None = None,
    tell: Tell | None = None,
    within: Within = exportable,
) -> ExportedDecoder:
    """Export a model that generates, as programs for its prefill and its decode step.

    Watches `model.generate()` on short prompts, learns which inputs there are, how they follow from the tokens and
    which dimensions move, exports, and compares every step with the model at sizes that it was not exported with.

    Args:
        model: a decoder or encoder-decoder of transformers, in evaluation mode.
        prompts: two or more prompts of other batch sizes and lengths, as keyword arguments of `generate()`, one of them
            padded on the left if padding is to be understood; made from the configuration if not given. Steps are then
            compared with the model at the sizes of these prompts only.
        lengths: lengths of prompts at which the programs must work; by default short ones and those around every
            window of the model. Prompts of one token have to be asked for (`lengths=[1, 8]`) where there is a mask:
            torch.export keeps a size of 1 apart, and they get a decode program of their own. Not beside `prompts`.
        failures: the folder in which the inputs of a failing export are left; a temporary one if not given.
        tell: told of each step, for progress.
        within: a registration of cache classes, and patches: entered here, and whenever the programs are run.

    Returns:
        The programs. They hold the model's parameters, not copies: a model that is cast or moved takes its programs
        along, which then refuse their inputs.

    Raises:
        ValueError: the arguments exclude each other.
        WatchError: this is no model that generates, it is in training mode, `generate()` fails, or calls the model in a
            way that is not understood.
        ExportError: torch.export refuses, or a program answers differently from the model.
    """
    _refuse(model, prompts, lengths)
    report = tell or (lambda _: None)
    with within(), torch.no_grad():
        patched = applied.in_force()
        report("watching generate()")
        first = [watch(model, prompt) for prompt in (prompts or base_prompts(model))]
        try:
            learnt = learn(first)
        except WatchError:
            # The inputs beside a cache of fixed length follow no rule; that it has one is the reason.
            refuse_full(first[0])
            raise
        length = switch(model)
        again = None if length is None else begins_anew(model, length)
        plan = dataclasses.replace(
            learnt, infers_mask=infers_mask(model, first[0]), begins_anew=None if again is None else length
        )
        _warn_of_settings(model, first[0])
        _warn_of_beginning_anew(model, again, length)
        cover = Cover(model, plan, None if failures is None else Path(failures), report)
        cover.learn(first)
        for watched in first:
            cover.add(watched)
        if prompts is None:
            if plan.begins_anew is not None:
                cover.add(_watched(model, 2, plan.begins_anew + 2, STEPS))
            for batch, length, steps in _states(model, lengths):
                cover.add(_watched(model, batch, length, steps))
            report("comparing at sizes that nothing was exported with")
            for batch, length, steps in _unseen(model, lengths):
                cover.add(_watched(model, batch, length, steps), grow=False)
    return ExportedDecoder(
        plan,
        cover.programs,
        greedy.settings_of(model),
        bundle.made_by(model, list(patched)),
        tuple(cover.differences),
        within,
    )


_UNSEEN = 11
_CROSSING = 5


def _refuse(model: Any, prompts: list[Prompt] | None, lengths: list[int] | None) -> None:
    """Refuse what cannot be exported before anything is watched."""
    name = type(model).__name__
    if not callable(getattr(model, "generate", None)) or not hasattr(model, "generation_config"):
        raise WatchError(
            f"a {name} does not generate: give a model with a language head (AutoModelForCausalLM, "
            "AutoModelForSeq2SeqLM), or export this one with torch.export.export inside exportable()"
        )
    if model.training:
        raise WatchError(f"this {name} is in training mode, in which dropout changes every answer: model.eval() first")
    if prompts is not None and lengths is not None:
        raise ValueError("give prompts or lengths: prompts have lengths of their own")
    if prompts is not None and len(prompts) < _PROMPTS:
        raise ValueError(f"give two prompts or more, of other batch sizes and lengths, got {len(prompts)}")
    listed = isinstance(lengths, (list, tuple)) and bool(lengths)
    if lengths is not None and not (listed and all(isinstance(one, int) and one > 0 for one in lengths)):
        raise ValueError(f"lengths are a list of numbers of tokens, one or more, got {lengths!r}")


_PROMPTS = 2
_SEARCHES = {"num_beams": 1, "num_beam_groups": 1, "penalty_alpha": None, "prompt_lookup_num_tokens": None}
"""Settings that choose another search than the greedy one, with the values that do not."""


def _warn_of_settings(model: Any, watched: Watched) -> None:
    """Say that the programs' greedy search is plain where the model's own is not."""
    config = model.generation_config
    found = [
        f"{name}={value}"
        for name, plain in _SEARCHES.items()
        if (value := getattr(config, name, None)) is not None and value != plain
    ]
    found += [f"changes the logits by {name}" for name in watched.processors]
    if found:
        warnings.warn(
            f"generate() of this {type(model).__name__} does more than greedy search, as its generation config asks: "
            f"{', '.join(found)}. ExportedDecoder.generate chooses the largest of the logits as they are, so that its "
            "tokens may be others",
            GreedyWarning,
            stacklevel=3,
        )


def _warn_of_beginning_anew(model: Any, again: Call | None, length: int | None) -> None:
    """Say that a model which computes all tokens again does so with the position of one (Phi-3 of 4.x)."""
    positions = None if again is None else again.inputs.get("cache_position")
    if positions is not None and len(positions) == 1:
        warnings.warn(
            f"generate() of this {type(model).__name__} computes all tokens again when they become more than {length}, "
            "and is told the position of the last one alone, a fault of this release; the programs are told all "
            "positions, so that tokens from there on may be others",
            GreedyWarning,
            stacklevel=3,
        )


class GreedyWarning(UserWarning):
    """A model's own `generate()` searches otherwise than the programs do."""


def base_prompts(model: Any) -> list[Prompt]:
    """Two prompts of other batch sizes and lengths, with padding."""
    return [make_prompt(model, 2, 6, padding=2, seed=1), make_prompt(model, 3, 9, padding=4, seed=2)]


def _states(model: Any, lengths: list[int] | None) -> list[tuple[int, int, int]]:
    """Batch, length of the prompt and steps of the generations that pass through every state.

    They begin well below each window, cross it, fill it, and begin past it.
    """
    if lengths is not None:
        return [(2, length, STEPS) for length in lengths]
    around = [(max(1, window + offset), STEPS) for window in windows(model) for offset in (-3, -2, -1, 0, 1)]
    return [(2, length, steps) for length, steps in dict.fromkeys([(2, STEPS), *around])]


def _unseen(model: Any, lengths: list[int] | None) -> list[tuple[int, int, int]]:
    """The same of generations that every program must take: another batch, from below each window to past it."""
    if lengths is not None:
        return [(1, lengths[-1], STEPS)]
    past = [(1, max(1, window - _CROSSING), 2 * _CROSSING) for window in windows(model)]
    return [(1, _UNSEEN, STEPS), (4, 3, STEPS), *past]


def _watched(model: Any, batch: int, length: int, steps: int) -> Watched:
    return watch(model, make_prompt(model, batch, length, padding=min(1, length - 1), seed=length), steps)
