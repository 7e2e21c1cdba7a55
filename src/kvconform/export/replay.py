"""Exporting one step again from the inputs that a failing export left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kvconform.export.cover import Cover, module_for
from kvconform.export.decoder import base_prompts
from kvconform.export.errors import SavedInputsError
from kvconform.export.exporting import export_step
from kvconform.export.plan import learn
from kvconform.export.saved import load_inputs
from kvconform.export.watch import watch
from kvconform.patches import exportable

__all__ = ["replay"]

_KINDS = ("encoder", "prefill", "decode")


def replay(model: Any, path: str | Path) -> str:
    """Export the step whose inputs a file holds.

    Args:
        model: the model that did not export.
        path: what its error named.

    Returns:
        A line that says that it exports now.

    Raises:
        SavedInputsError: the file holds something else.
        ExportError: it does not export.
    """
    saved = load_inputs(path)
    if not isinstance(saved, dict) or set(saved) != {"kind", "inputs"} or saved["kind"] not in _KINDS:
        raise SavedInputsError(f"{path} holds no inputs of a step: give the file that an error of export_decoder named")
    with exportable(), torch.no_grad():
        first = [watch(model, prompt) for prompt in base_prompts(model)]
        plan = learn(first)
        cover = Cover(model, plan, Path(path).parent)
        cover.learn(first)
        module = module_for(model, plan, saved["kind"], first[0].calls[0])
        program = export_step(saved["kind"], module, saved["inputs"], cover.moves[saved["kind"]], Path(path).parent)
    return f"the {program.kind} step exports from {path}: it takes {'; '.join(str(leaf) for leaf in program.leaves)}"
