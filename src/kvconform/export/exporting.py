"""Exporting one step: inputs as they were recorded, the dimensions that moved made dynamic."""

from __future__ import annotations

import operator
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform import probes
from kvconform.errors import KVConformError
from kvconform.export.errors import ExportError
from kvconform.export.program import Program, leaves_of
from kvconform.export.saved import save_inputs
from kvconform.shapes import dynamic_shapes_for

__all__ = ["export_step", "moving"]


def moving(examples: list[dict[str, Any]]) -> dict[str, set[int]]:
    """The dimensions of each tensor that differ between the examples.

    Args:
        examples: the same inputs of other batch sizes and lengths.
    """
    if not examples:
        return {}
    first, *others = examples
    return {
        name: {
            axis
            for axis in range(value.dim())
            if any(other[name].shape[axis] != value.shape[axis] for other in others if name in other)
        }
        for name, value in first.items()
        if isinstance(value, torch.Tensor)
    }


def export_step(
    kind: str, module: torch.nn.Module, inputs: dict[str, Any], moves: dict[str, set[int]], folder: Path | None
) -> Program:
    """Export one step.

    Args:
        kind: "encoder", "prefill" or "decode".
        module: takes the inputs by name.
        inputs: tensors, and caches.
        moves: the dimensions of the tensors that are dynamic; of caches batch and length are.
        folder: where the inputs are left when exporting fails; a new temporary folder if None.

    Raises:
        ExportError: torch.export refuses, or makes the batch size a constant. The inputs are left in a file.
    """
    auto = getattr(torch.export.Dim, "AUTO", None)
    if auto is None:
        raise ExportError(
            f"export_decoder needs torch.export.Dim.AUTO, which {probes.release()} lacks: install torch 2.5 or later"
        )
    shapes = {
        name: dict.fromkeys(sorted(moves.get(name, ())), auto)
        if isinstance(value, torch.Tensor)
        else dynamic_shapes_for(value, batch=auto, length=auto, cross_length=auto)
        for name, value in inputs.items()
    }
    try:
        with torch.no_grad():
            exported = torch.export.export(module, (), dict(inputs), dynamic_shapes=shapes, strict=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {_shortened(error)}"
        raise ExportError(_told(kind, reason, inputs, module, folder)) from error
    _write_negation_as_product(exported)
    # torch 2.5 marks the tensors of dynamic dimensions with Python sets, which the safe unpickler refuses to load.
    exported._example_inputs = ((), py_pytree.tree_map_only(torch.Tensor, torch.clone, dict(inputs)))
    program = Program(kind, tuple(inputs), exported, leaves_of(exported))
    constant = [
        leaf.name for leaf in program.leaves if leaf.name in moves and _constant_batch(leaf.sizes, moves[leaf.name])
    ]
    if constant:
        reason = f"the batch size of {', '.join(constant)} became a constant of the program"
        raise ExportError(_told(kind, reason, inputs, module, folder))
    return program


def _write_negation_as_product(exported: torch.export.ExportedProgram) -> None:
    """Write `-n` of a size as `n * -1`: torch 2.5 cannot save a program that holds the former (T5 slices so)."""
    for node in exported.graph.nodes:
        if node.op == "call_function" and node.target is operator.neg:
            node.target, node.args = operator.mul, (node.args[0], -1)
    exported.graph_module.recompile()


def _constant_batch(sizes: tuple[Any, ...], moves: set[int]) -> bool:
    return 0 in moves and isinstance(sizes[0], int)


def _shortened(error: BaseException, limit: int = 600) -> str:
    """An error as one line: torch writes whole graphs into some."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[:limit]}..."


def _told(kind: str, reason: str, inputs: dict[str, Any], module: torch.nn.Module, folder: Path | None) -> str:
    where = (Path(tempfile.mkdtemp(prefix="kvconform-")) if folder is None else folder) / f"{kind}.safetensors"
    model = getattr(module, "model", getattr(module, "encoder", module))
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        save_inputs({"kind": kind, "inputs": inputs}, where)
    except (KVConformError, OSError) as error:
        kept = f"Its inputs could not be saved: {error}"
    else:
        kept = f"Its inputs are in {where}; replay: python -m kvconform validate {_name(model)} --inputs {where}"
    return f"the {kind} step of {type(model).__name__} does not export with {probes.release()}: {reason}. {kept}"


def _name(model: Any) -> str:
    """What the command line knows the model by: its folder, or its config class."""
    folder = getattr(getattr(model, "config", None), "_name_or_path", "")
    return folder or type(getattr(model, "config", model)).__name__
