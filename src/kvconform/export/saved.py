"""Any nest of tensors, numbers, strings and caches in one file, and back, without unpickling.

What reproduces a problem is its inputs. `save_inputs(tree, path)` writes them as a safetensors file, or as an ONNX file
where the path ends with `.onnx`; the structure is JSON in its metadata. `load_inputs(path)` gives them back on any
release on which the structure exists.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform import probes, register
from kvconform.errors import KVConformError
from kvconform.export import onnx_file, tensor_file
from kvconform.export.errors import SavedInputsError

__all__ = ["load_inputs", "save_inputs"]

SCHEMA = 1
_KEY = "kvconform.tree"
_SEQUENCES: dict[str, type] = {"list": list, "tuple": tuple, "size": torch.Size}
_MAPPINGS: dict[str, type] = {"dict": dict, "ordered": OrderedDict}
_PLAIN = (type(None), bool, int, str, float, torch.dtype)
# Containers whose registration by torch would import what a file names.
_REFUSED = frozenset({"collections", "builtins"})


def save_inputs(tree: Any, path: str | Path) -> Path:
    """Write a nest of values to one file.

    Args:
        tree: tensors of any device and dtype, None, bool, int, float, str, torch.dtype, and lists, tuples, dicts,
            caches, ModelOutputs and other registered pytree nodes of them. One tensor object in two places is written
            once, and loaded as one object.
        path: `.onnx` for an ONNX file (needs the package onnx), anything else for a safetensors file.

    Returns:
        The path.

    Raises:
        SavedInputsError: something in the tree cannot be written; the message says where it is.
    """
    path = Path(path)
    tensors: dict[int, torch.Tensor] = {}
    with register.register_flattening_functions():
        try:
            structure = _encoded(tree, "the tree", tensors)
        except RecursionError as error:
            raise SavedInputsError("the tree holds itself, or is nested too deeply: save its parts") from error
    if not path.parent.is_dir() or path.is_dir():
        raise SavedInputsError(f"{path} cannot be written: give a file in a folder that exists")
    text = json.dumps({"schema": SCHEMA, "tree": structure}, allow_nan=False)
    named = {f"t{index}": tensor for index, tensor in enumerate(tensors.values())}
    (onnx_file if path.suffix == ".onnx" else tensor_file).write(path, named, {_KEY: text})
    return path


def load_inputs(path: str | Path) -> Any:
    """Read what `save_inputs` wrote, on the CPU.

    Raises:
        SavedInputsError: the file is missing, damaged, of another program or another schema, or holds a class that
            this release lacks.
    """
    path = Path(path)
    if not path.is_file():
        raise SavedInputsError(f"no file {path}: give the path that save_inputs wrote")
    named, metadata = (onnx_file if path.suffix == ".onnx" else tensor_file).read(path)
    if _KEY not in metadata:
        raise SavedInputsError(f"{path} holds tensors and no tree: it was not written by kvconform.save_inputs")
    try:
        document = json.loads(metadata[_KEY])
        if document["schema"] != SCHEMA:
            raise SavedInputsError(
                f"{path} has schema {document['schema']}, this kvconform reads {SCHEMA}: write it again"
            )
        with register.register_flattening_functions():
            return _decoded(document["tree"], named)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, KVConformError):
            raise
        raise SavedInputsError(f"{path} is damaged: {type(error).__name__}: {error}; write it again") from error


def _encoded(value: Any, where: str, tensors: dict[int, torch.Tensor]) -> Any:
    """A value as JSON; a tensor as the number that it is written under."""
    if isinstance(value, torch.Tensor):
        if type(value) not in {torch.Tensor, torch.nn.Parameter} or value.layout is not torch.strided:
            raise SavedInputsError(
                f"{where} is a {type(value).__name__} of layout {value.layout}: only plain tensors are saved"
            )
        if value.is_meta:
            raise SavedInputsError(f"{where} is a tensor on the device meta, which has no elements to save")
        tensors.setdefault(id(value), value)
        return {"tensor": list(tensors).index(id(value))}
    if isinstance(value, _PLAIN):
        return _encoded_plain(value)
    for name, cls in (*_SEQUENCES.items(), *_MAPPINGS.items()):
        if type(value) is cls:
            return {name: _encoded_items(value, where, tensors)}
    return _encoded_node(value, where, tensors)


def _encoded_plain(value: Any) -> dict[str, Any]:
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, float):
        return {"value": float(value)} if math.isfinite(value) else {"float": repr(float(value))}
    if value is None or isinstance(value, bool):
        return {"value": value}
    # Of an enumeration's member the number or the text.
    return {"value": int(value) if isinstance(value, int) else str(value)}


def _encoded_items(value: Any, where: str, tensors: dict[int, torch.Tensor]) -> list[Any]:
    if isinstance(value, dict):
        return [[_key(key, where), _encoded(item, f"{where}[{key!r}]", tensors)] for key, item in value.items()]
    return [_encoded(item, f"{where}[{at}]", tensors) for at, item in enumerate(value)]


def _key(key: Any, where: str) -> Any:
    if not isinstance(key, (bool, int, str)):
        raise SavedInputsError(f"{where} has the key {key!r}, a {type(key).__name__}: keys are strings or ints")
    return key


def _encoded_node(value: Any, where: str, tensors: dict[int, torch.Tensor]) -> Any:
    cls = type(value)
    known = py_pytree.SUPPORTED_NODES.get(cls)
    names = py_pytree.SUPPORTED_SERIALIZED_TYPES.get(cls)
    if known is None or names is None or cls.__module__ in _REFUSED or issubclass(cls, tuple):
        raise SavedInputsError(
            f"{where} is a {cls.__module__}.{cls.__qualname__}, which is no registered pytree node: register it with "
            "kvconform.register_class_flattening or kvconform.register_cache_adapter, or save its parts"
        )
    children, context = known.flatten_fn(value)
    dumped = names.to_dumpable_context(context) if names.to_dumpable_context else json.dumps(context)
    parts = [_encoded(child, f"{where}, part {at} of {cls.__name__}", tensors) for at, child in enumerate(children)]
    return {"node": names.serialized_type_name, "context": dumped, "children": parts}


def _decoded(part: dict[str, Any], named: dict[str, torch.Tensor]) -> Any:
    if "node" in part:
        return _decoded_node(part, named)
    ((kind, content),) = part.items()
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](_decoded(item, named) for item in content)
    if kind in _MAPPINGS:
        return _MAPPINGS[kind]((key, _decoded(item, named)) for key, item in content)
    return _LEAVES[kind](content, named)


_LEAVES: dict[str, Callable[[Any, dict[str, torch.Tensor]], Any]] = {
    "tensor": lambda content, named: named[f"t{content}"],
    "value": lambda content, _: content,
    "float": lambda content, _: float(content),
    "dtype": lambda content, _: _dtype(content),
}


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise SavedInputsError(f"the file names the dtype {name!r}, which {probes.release()} lacks")
    return found


def _decoded_node(part: dict[str, Any], named: dict[str, torch.Tensor]) -> Any:
    cls = py_pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(part["node"])
    if cls is None or cls.__module__ in _REFUSED or issubclass(cls, tuple):
        raise SavedInputsError(
            f"the file holds a {part['node']}, which is no registered pytree node on {probes.release()}: import its "
            "module and register it (kvconform.register_cache_adapter) before loading"
        )
    names = py_pytree.SUPPORTED_SERIALIZED_TYPES[cls]
    context = part["context"]
    loaded = names.from_dumpable_context(context) if names.from_dumpable_context else json.loads(context)
    children = [_decoded(child, named) for child in part["children"]]
    return py_pytree.SUPPORTED_NODES[cls].unflatten_fn(children, loaded)
