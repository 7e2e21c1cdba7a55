"""Programs of one call in other runtimes: the same tokens as the model, and the names that a runtime's users expect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvconform.checks.errors import ExpectationError, expect
from kvconform.errors import KVConformError
from kvconform.export.decoder import ExportedDecoder
from kvconform_conformance.examples.generation import GENERATING, TOKENS, Generating
from kvconform_conformance.runner.subjects import Subject

__all__ = ["RUN_ELSEWHERE", "expect_same_tokens_in"]

RUN_ELSEWHERE = tuple(one for one in GENERATING if one.name in {"llama", "gemma3"})
"""Full attention, and sliding attention beside it: a window is where a runtime without conditions answers wrongly."""

Convert = Callable[[ExportedDecoder, Path], ExportedDecoder]


def expect_same_tokens_in(convert: Convert, subject: Subject, generating: Generating, folder: Path) -> ExportedDecoder:
    """Prove that programs in another runtime generate the 64 tokens of `model.generate()`, and return them.

    Args:
        convert: gives the programs of the runtime.
        subject: the context to export and to run in.
        generating: the model and its prompts.
        folder: for the files.
    """
    __tracebackhide__ = True
    try:
        model, exported = generating.exported(subject)
        converted = convert(exported, folder)
        found = [_tokens(converted, prompt) for prompt in generating.prompts(model)]
    except KVConformError as error:
        raise ExpectationError(f"{type(error).__name__}: {error} [{generating.name}]") from error
    for prompt, tokens in zip(generating.prompts(model), found, strict=True):
        wanted = model.generate(**prompt, max_new_tokens=TOKENS, do_sample=False)
        where = f"{generating.name}, {tuple(prompt['input_ids'].shape)}"
        expect(tokens.shape == wanted.shape, f"{tuple(tokens.shape)} tokens, expected {tuple(wanted.shape)}", where)
        differing = (tokens != wanted).any(0).nonzero().flatten().tolist()
        expect(not differing, f"token {differing[0] if differing else 0} differs from the model's", where)
    return converted


def _tokens(converted: ExportedDecoder, prompt: dict[str, Any]) -> Any:
    return converted.generate(prompt["input_ids"], prompt["attention_mask"], max_new_tokens=TOKENS)
