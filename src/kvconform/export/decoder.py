"""One call from a model to programs, and greedy generation through them.

exported = export_decoder(model)
tokens = exported.generate(input_ids, attention_mask=mask, max_new_tokens=64)
exported.save("folder")

exported = load_decoder("folder")          # in another process, without the model's code
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kvconform.export import bundle, greedy
from kvconform.export.compare import Difference
from kvconform.export.cover import Cover, Programs, Tell
from kvconform.export.greedy import Settings
from kvconform.export.plan import Plan, learn
from kvconform.export.prompts import make_prompt, windows
from kvconform.export.watch import STEPS, Watched, watch
from kvconform.patches import applied, exportable

__all__ = ["ExportedDecoder", "base_prompts", "export_decoder", "load_decoder"]

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
        inputs: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        max_new_tokens: int = 20,
        on_token: Callable[[torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """Generate greedily, as `model.generate(inputs, do_sample=False)` does.

        Args:
            inputs: token ids of shape (batch, tokens), padded on the left; features for a model of speech.
            attention_mask: 1 for tokens and 0 for padding. If not given, what is the padding token is padding.
            max_new_tokens: stop after as many.
            on_token: called with each step's tokens, shape (batch,).

        Returns:
            Prompt and generated tokens, shape (batch, tokens); of an encoder-decoder what its decoder began with and
            the generated tokens.

        Raises:
            NoProgramError: no program takes the inputs of a step.
        """
        with self.within():
            return greedy.generate(self, inputs, attention_mask, max_new_tokens, on_token or (lambda _: None))

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
        prompts: two or more prompts of other batch sizes and lengths, as keyword arguments of `generate()`; made from
            the configuration if not given.
        lengths: lengths of prompts at which the programs must work; by default short ones and those around every
            window of the model. Prompts of one token have to be asked for (`lengths=[1, 8]`) where there is a mask:
            torch.export keeps a size of 1 apart, and they get a decode program of their own.
        failures: the folder in which the inputs of a failing export are left; a temporary one if not given.
        tell: told of each step, for progress.
        within: a registration of cache classes, and patches: entered here, and whenever the programs are run.

    Returns:
        The programs.

    Raises:
        WatchError: `generate()` fails, or calls the model in a way that is not understood.
        ExportError: torch.export refuses, or a program answers differently from the model.
    """
    report = tell or (lambda _: None)
    with within(), torch.no_grad():
        patched = applied.in_force()
        report("watching generate()")
        first = [watch(model, prompt) for prompt in (prompts or base_prompts(model))]
        plan = learn(first)
        _warn_of_processors(model, first[0])
        cover = Cover(model, plan, None if failures is None else Path(failures), report)
        cover.learn(first)
        for watched in first:
            cover.add(watched)
        if prompts is None:
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


def _warn_of_processors(model: Any, watched: Watched) -> None:
    """Say that the programs' greedy search is plain where the model's own is not."""
    if watched.processors:
        warnings.warn(
            f"generate() of this {type(model).__name__} changes the logits ({', '.join(watched.processors)}), which "
            "its generation config asks for; ExportedDecoder.generate chooses among the logits as they are, so that "
            "its tokens may be others",
            stacklevel=3,
        )


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
