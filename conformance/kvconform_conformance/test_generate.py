"""Generate (opt-in): one call exports a model, and its programs generate token for token what the model generates.

`export_decoder` is given the subject as the context to export and to run in: what differs between subjects is what they
register and patch.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kvconform.checks.errors import ExpectationError, expect
from kvconform.errors import KVConformError
from kvconform.export.decoder import ExportedDecoder
from kvconform.export.errors import NoProgramError
from kvconform.export.saved import load_inputs, save_inputs
from kvconform_conformance.examples.generation import GENERATING, TOKENS, Generating
from kvconform_conformance.runner.subjects import Subject


@pytest.mark.parametrize("generating", GENERATING, ids=lambda generating: generating.name)
def test_as_the_model(subject: Subject, generating: Generating) -> None:
    """Programs of one call generate the 64 tokens of `model.generate()`, at two batches, padded, past every window."""
    model, exported = _exported(subject, generating)
    for prompt in generating.prompts(model):
        source, mask = next(iter(prompt.values())), prompt.get("attention_mask")
        try:
            found = exported.generate(source, mask, max_new_tokens=TOKENS)
        except NoProgramError as error:
            raise ExpectationError(f"the programs do not generate to the end: {error}") from error
        _expect_same_tokens(found, _wanted(model, prompt), f"{generating.name}, {tuple(source.shape)}")


@pytest.mark.parametrize("generating", GENERATING, ids=lambda generating: generating.name)
def test_after_loading(subject: Subject, generating: Generating, tmp_path: Path) -> None:
    """Saved and loaded in a fresh process, the programs generate the same 64 tokens."""
    model, exported = _exported(subject, generating)
    prompts = generating.prompts(model)
    folder, given, result = tmp_path / "bundle", tmp_path / "given.safetensors", tmp_path / "tokens.safetensors"
    exported.save(folder)
    save_inputs(prompts, given)
    command = [sys.executable, "-m", "kvconform_conformance.examples.generation", subject.name]
    command += [str(folder), str(given), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this interpreter
    expect(done.returncode == 0, f"the fresh process ended with {done.returncode}: {done.stderr[-1500:]}")
    for prompt, found in zip(prompts, load_inputs(result), strict=True):
        where = f"{generating.name}, {tuple(next(iter(prompt.values())).shape)}, loaded"
        _expect_same_tokens(found, _wanted(model, prompt), where)


def _exported(subject: Subject, generating: Generating) -> tuple[Any, ExportedDecoder]:
    try:
        return generating.exported(subject)
    except KVConformError as error:
        raise ExpectationError(f"{type(error).__name__}: {error} [{generating.name}]") from error


def _wanted(model: Any, prompt: dict[str, torch.Tensor]) -> torch.Tensor:
    tokens: torch.Tensor = model.generate(**prompt, max_new_tokens=TOKENS, do_sample=False)
    return tokens


def _expect_same_tokens(found: torch.Tensor, wanted: torch.Tensor, where: str) -> None:
    """What was generated is equal. What stands before differs: Whisper leaves out what its decoder began with."""
    expect(
        found.shape[1] >= TOKENS and wanted.shape[1] >= TOKENS,
        f"{found.shape[1]} tokens, the model has {wanted.shape[1]}, expected {TOKENS} at least",
        where,
    )
    differing = (found[:, -TOKENS:] != wanted[:, -TOKENS:]).any(0).nonzero().flatten().tolist()
    expect(not differing, f"token {differing[0] + 1 if differing else 0} of {TOKENS} differs from the model's", where)
