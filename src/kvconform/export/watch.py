"""Watching one `generate()`: what a model is called with at each step, and what it answers.

`generate()` is the only place where a release writes down which inputs a decoder wants: `cache_position` until 5.x,
`position_ids` that count from the first token which is no padding, `logits_to_keep`, an encoder's output. Nothing of
that is assumed here; each call is recorded.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from kvconform import probes
from kvconform.export.errors import WatchError
from kvconform.export.prompts import make_prompt, text_config

__all__ = ["Call", "Watched", "begins_anew", "generation_class", "infers_mask", "watch"]

STEPS = 3


@dataclass(frozen=True)
class Call:
    """One call of a model.

    Attributes:
        inputs: its keyword arguments, as they were before the call.
        outputs: what it answered, as it was after the call.
    """

    inputs: dict[str, Any]
    outputs: Any

    @property
    def cache(self) -> str:
        """The name of the argument that is a cache.

        Raises:
            WatchError: no argument is.
        """
        # Mamba's and other hybrid models' caches were no subclasses of Cache until 5.x.
        classes = tuple(probes.cache_classes())
        for name, value in self.inputs.items():
            if isinstance(value, classes):
                return name
        raise WatchError(
            f"generate() of {probes.release()} calls this model without a cache (arguments {', '.join(self.inputs)}): "
            "there is no decode step to export; use torch.export.export on the model itself"
        )


@dataclass(frozen=True)
class Watched:
    """One `generate()`.

    Attributes:
        prompt: what it was given.
        encoder: the call of the encoder, if there is one.
        calls: the calls of the model: the prefill, then one for each token.
        tokens: what it returned, shape (batch, tokens).
        processors: the classes of what changes the logits between the model and the choice of a token.
    """

    prompt: dict[str, torch.Tensor]
    encoder: Call | None
    calls: tuple[Call, ...]
    tokens: torch.Tensor
    processors: tuple[str, ...] = ()

    @property
    def cache(self) -> str:
        """The name of the argument that is a cache. A model may make its cache itself: the first call then has none.

        Raises:
            WatchError: no argument of any call is.
        """
        return self.calls[-1].cache

    @property
    def batch(self) -> int:
        """Rows of the prompt."""
        return int(next(iter(self.prompt.values())).shape[0])


def generation_class() -> Any:
    """The GenerationMixin of transformers, whose `generate` models with one of their own (Whisper) override."""
    return importlib.import_module("transformers.generation.utils").GenerationMixin


def watch(model: Any, prompt: dict[str, torch.Tensor], steps: int = STEPS) -> Watched:
    """Run one greedy `generate()` and record every call of the model and of its encoder.

    Args:
        model: a model of transformers that generates.
        prompt: keyword arguments of `generate()`, as `input_ids` and `attention_mask`.
        steps: tokens to generate after the first.

    Returns:
        The calls, their inputs copied before and their outputs after they were made.

    Raises:
        WatchError: `generate()` itself fails, or makes another number of calls.
    """
    encoder_calls: list[Call] = []
    calls: list[Call] = []
    settings = _settings(model, steps)
    encoder = model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else None
    processors: list[str] = []
    with (
        torch.no_grad(),
        _recording(model, calls),
        _recording(encoder, encoder_calls),
        _listing_processors(model, processors),
    ):
        try:
            tokens = generation_class().generate(model, **prompt, **settings)
        except Exception as error:
            raise WatchError(
                f"generate() of this {type(model).__name__} fails on {probes.release()} before anything is exported: "
                f"{type(error).__name__}: {error}. Where its generation_config asks for what it cannot do here, change "
                "that; where it needs other inputs, give two prompts: export_decoder(model, prompts=[{...}, {...}])"
            ) from error
    if len(calls) != steps + 1:
        raise WatchError(
            f"generate() made {len(calls)} calls of {type(model).__name__} for {steps + 1} tokens, expected one a token"
        )
    return Watched(
        prompt, encoder_calls[0] if encoder_calls else None, tuple(calls), tokens, tuple(dict.fromkeys(processors))
    )


def begins_anew(model: Any, length: int) -> Call | None:
    """The call in which `generate()` computes all tokens again, as they are more than `length`; None: there is none.

    It is given no cache then.
    """
    again = watch(model, make_prompt(model, 1, length), steps=1).calls[1]
    classes = tuple(probes.cache_classes())
    return None if any(isinstance(value, classes) for value in again.inputs.values()) else again


def infers_mask(model: Any, watched: Watched) -> bool:
    """Whether `generate()` takes the padding token for padding where it is given no mask.

    Decoders do. Encoder-decoders do on some releases: it is seen by what their encoder is called with.
    """
    pad, ids = model.generation_config.pad_token_id, watched.prompt.get("input_ids")
    if watched.encoder is None or pad is None or ids is None:
        return True
    padded = ids.clone()
    padded[:, 0] = pad
    called = watch(model, {"input_ids": padded}, steps=1).encoder
    mask = None if called is None else called.inputs.get("attention_mask")
    return mask is not None and not bool(mask.all())


def _settings(model: Any, steps: int) -> dict[str, Any]:
    """Plain greedy search that no token ends: the end is a token that the vocabulary lacks."""
    pad = getattr(model.generation_config, "pad_token_id", None)
    return {
        "max_new_tokens": steps + 1,
        "do_sample": False,
        "num_beams": 1,
        "use_cache": True,
        "eos_token_id": text_config(model).vocab_size,
        "pad_token_id": 0 if pad is None else pad,
    }


@contextmanager
def _recording(module: Any, calls: list[Call]) -> Iterator[None]:
    """Record the calls of a module while the block runs; None is recorded nowhere."""
    if module is None:
        yield
        return
    pending: list[dict[str, Any]] = []

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Later steps write to the cache that they are given.
        pending.append(copy.deepcopy(_named(module, args, kwargs)))

    def after(_: Any, __: Any, ___: Any, output: Any) -> None:
        calls.append(Call(pending.pop(), copy.deepcopy(output)))

    hooks = (
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _listing_processors(model: Any, found: list[str]) -> Iterator[None]:
    """Note what `generate()` puts between the model and the choice of a token, while the block runs."""
    original = model._get_logits_processor

    def noting(*args: Any, **kwargs: Any) -> Any:
        processors = original(*args, **kwargs)
        found.extend(type(processor).__name__ for processor in processors)
        return processors

    model._get_logits_processor = noting
    try:
        yield
    finally:
        del model._get_logits_processor


def _named(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name; what is None is left out, as if it had not been given."""
    names = list(probes.parameters_of(module.forward))
    named = dict(zip(names, args, strict=False)) | kwargs
    return {name: value for name, value in named.items() if value is not None}
