"""Exporting one step: inputs as they were recorded, the dimensions that moved made dynamic."""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Callable
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

__all__ = ["Moves", "export_step", "moving"]

Moves = dict[str, tuple[frozenset[int], ...]]
"""For each input, of each of its leaves the dimensions that move."""


def moving(examples: list[dict[str, Any]]) -> Moves:
    """The dimensions of each leaf that differ between the examples.

    Args:
        examples: the same inputs of other batch sizes and lengths. Caches of another structure than the first say
            nothing.
    """
    if not examples:
        return {}
    first, *others = examples
    return {name: _moving(value, [other[name] for other in others if name in other]) for name, value in first.items()}


def _moving(value: Any, others: list[Any]) -> tuple[frozenset[int], ...]:
    leaves, spec = py_pytree.tree_flatten(value)
    flat = [py_pytree.tree_flatten(other) for other in others]
    alike = [there for there, other in flat if len(there) == len(leaves) and other.type == spec.type]
    return tuple(_axes(leaf, [there[number] for there in alike]) for number, leaf in enumerate(leaves))


def _axes(leaf: Any, others: list[Any]) -> frozenset[int]:
    if not isinstance(leaf, torch.Tensor):
        return frozenset()
    alike = [other for other in others if isinstance(other, torch.Tensor) and other.dim() == leaf.dim()]
    return frozenset(axis for axis in range(leaf.dim()) if any(one.shape[axis] != leaf.shape[axis] for one in alike))


def _shapes(value: Any, moves: tuple[frozenset[int], ...], auto: Any) -> Any:
    """Dynamic shapes of an input. Of a cache, batch and length are dynamic, and what moved in a leaf of no known name.

    A cache that is no subclass of Cache has leaves of no known name alone.
    """
    if isinstance(value, torch.Tensor):
        return dict.fromkeys(sorted(moves[0] if moves else ()), auto)
    base = probes.cache_class("Cache")
    if base is not None and isinstance(value, base):
        known = dynamic_shapes_for(value, batch=auto, length=auto, cross_length=auto)
    else:
        known = _nothing(py_pytree.tree_structure(value))
    found = iter(moves)
    return _filled(known, lambda: dict.fromkeys(sorted(next(found, ())), auto) or None)


def _nothing(spec: Any) -> Any:
    """The lists that torch compares with the children of registered classes, with None for each leaf."""
    # torch 2.15 warns about the attribute, and earlier releases have no method.
    children = spec.children() if hasattr(spec, "children") else spec.children_specs
    return None if spec.is_leaf() else [_nothing(child) for child in children]


def _filled(known: Any, moved: Callable[[], Any]) -> Any:
    """Known shapes with what moved in the place of None, leaf by leaf."""
    if isinstance(known, list):
        return [_filled(child, moved) for child in known]
    own = moved()
    return own if known is None else known


def export_step(
    kind: str, module: torch.nn.Module, inputs: dict[str, Any], moves: Moves, folder: Path | None
) -> Program:
    """Export one step.

    Args:
        kind: "encoder", "prefill" or "decode".
        module: takes the inputs by name.
        inputs: tensors, and caches.
        moves: the dimensions of tensors that are dynamic; of caches batch and length are.
        folder: where the inputs are left when exporting fails; a new temporary folder if None.

    Raises:
        ExportError: torch.export refuses, or makes the batch size a constant. The inputs are left in a file.
    """
    auto = getattr(torch.export.Dim, "AUTO", None)
    if auto is None:
        raise ExportError(
            f"export_decoder needs torch.export.Dim.AUTO, which {probes.release()} lacks: install torch 2.5 or later"
        )
    shapes = {name: _shapes(value, moves.get(name, ()), auto) for name, value in inputs.items()}
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
        leaf.name
        for leaf in program.leaves
        if isinstance(inputs.get(leaf.name), torch.Tensor) and _constant_batch(leaf.sizes, moves.get(leaf.name, ()))
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


def _constant_batch(sizes: tuple[Any, ...], moves: tuple[frozenset[int], ...]) -> bool:
    return bool(moves) and 0 in moves[0] and isinstance(sizes[0], int)


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
