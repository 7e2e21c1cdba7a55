"""Models that are exported whole and generate, here and (`python -m` this module) in a fresh process.

Windows are 8 tokens, so that prompts begin below and past them, and 64 generated tokens pass them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch

from kvconform.checks.needs import Need
from kvconform.export.decoder import ExportedDecoder, export_decoder, load_decoder
from kvconform.export.prompts import make_prompt
from kvconform.export.saved import load_inputs, save_inputs
from kvconform_conformance.examples.models import BY_NAME
from kvconform_conformance.examples.tiny import TinyModel
from kvconform_conformance.runner.subjects import Subject, resolve

__all__ = ["GENERATING", "SIZES", "TOKENS", "Generating"]

TOKENS = 64
# Rows, tokens of the prompt, and padding on the left of the first row: below a window of 8, and past it.
SIZES = ((2, 6, 2), (3, 13, 4))


@dataclass(frozen=True)
class Generating:
    """A model that generates."""

    tiny: TinyModel

    @property
    def name(self) -> str:
        """The model's."""
        return self.tiny.name

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the model needs of the release."""
        return self.tiny.needs

    def model(self) -> Any:
        """The model; no token ends a row."""
        model = self.tiny.build()
        model.generation_config.eos_token_id = None
        return model

    def prompts(self, model: Any) -> list[dict[str, torch.Tensor]]:
        """Two prompts of other batch sizes and lengths, padded on the left."""
        return [
            make_prompt(model, batch, length, padding=padding, seed=batch + length) for batch, length, padding in SIZES
        ]

    def exported(self, subject: Subject) -> tuple[Any, ExportedDecoder]:
        """The model and its programs; the last ones are kept, since exporting takes seconds."""
        key = (self.name, subject.name)
        if key not in _EXPORTED:
            _EXPORTED.clear()
            model = self.model()
            _EXPORTED[key] = (model, export_decoder(model, within=subject.activate))
        return _EXPORTED[key]


_EXPORTED: dict[tuple[str, str], tuple[Any, ExportedDecoder]] = {}


def _of(name: str, **more: Any) -> Generating:
    tiny = BY_NAME[name]
    return Generating(replace(tiny, settings={**tiny.settings, **more}))


GENERATING = (
    _of("llama"),
    _of("mistral", sliding_window=8),
    _of("gemma3", sliding_window=8),
    _of("qwen2"),
    _of("t5"),
    # The tokens that it suppresses by default are beyond a tiny vocabulary.
    _of("whisper", begin_suppress_tokens=None, suppress_tokens=None),
)


def main(arguments: list[str]) -> None:
    """As the subject, load the bundle, generate for the prompts, and save the tokens."""
    subject, bundle, prompts, result = arguments
    torch.set_num_threads(1)
    exported = load_decoder(bundle, within=resolve(subject).activate)
    tokens = [
        exported.generate(next(iter(prompt.values())), prompt.get("attention_mask"), max_new_tokens=TOKENS)
        for prompt in load_inputs(prompts)
    ]
    save_inputs(tokens, result)


if __name__ == "__main__":
    main(sys.argv[1:])
