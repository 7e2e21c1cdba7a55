"""Dynamic shapes of inputs that a module takes as `**kwargs`, by their names.

Models of transformers take `**kwargs: Unpack[TransformersKwargs]`. An input that is given by keyword and has no
parameter of its name is there. torch.export up to 2.13 wants its shape under the name of that parameter,
`{"kwargs": {"x": ...}}`, refuses `{"x": ...}`, and from 2.8 on refuses the first too, after it has traced the model:
it orders the inputs once more, and finds each of these inputs twice. Here shapes are taken under either name, as in
later releases.

A program of torch 2.9 and later checks the guards of its trace. They call such an input `L['kwargs']['x']`, and the
program knows it as `L['x']`, so that a guard on its size raises `NameError: name 'L' is not defined`. Here the trace
calls it as the program does. A strict export is traced by Dynamo, whose names stay what they are.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed

__all__ = ["PATCH"]

_EXPORT, _CONSTRAIN, _NAME = "_export", "make_constraints", "make_sourced_prefixes"


def _tracer() -> ModuleType:
    return importlib.import_module("torch.export._trace")


def _namer() -> ModuleType:
    return importlib.import_module("torch._export.non_strict_utils")


def _probe() -> Answer:
    if not hasattr(_tracer(), _EXPORT) or not hasattr(_tracer(), _CONSTRAIN):
        return not_applicable("torch.export of this release is another code")
    if not _finds_names():
        return needed("programs of this release do not find an input of **kwargs by the name that their guards have")
    if not _takes_names():
        return needed("torch.export of this release refuses the shape of an input of **kwargs by its name")
    return not_needed("torch.export of this release takes the shape of an input of **kwargs by its name")


def _finds_names() -> bool:
    """Whether the trace calls an input of `**kwargs` by its own name; a release that asks for no name is right too."""
    if not hasattr(_namer(), _NAME):
        return True

    def takes(**named: Any) -> None:
        """Nothing but a signature."""

    sources = getattr(_namer(), _NAME)(takes, (), {"given": None}).root.values()
    return all(isinstance(source, _source("LocalSource")) for named in sources for source in named.values())


def _source(name: str) -> Any:
    return getattr(importlib.import_module("torch._dynamo.source"), name)


def _takes_names() -> bool:
    """Whether an export gets as far as to run the module. It ends there, so that nothing else is traced."""
    reached: list[bool] = []

    class Takes(torch.nn.Module):
        def forward(self, **named: torch.Tensor) -> torch.Tensor:
            reached.append("given" in named)
            raise ValueError("reached")

    try:
        torch.export.export(Takes(), (), {"given": torch.zeros(2)}, dynamic_shapes={"given": None}, strict=False)
    except Exception:  # noqa: BLE001 (an export never comes to its end here)
        return any(reached)
    return True


def _by_either_name(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `torch.export._trace._export`."""

    @functools.wraps(original)
    def export(
        mod: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        dynamic_shapes: Any = None,
        **settings: Any,
    ) -> Any:
        return original(mod, args, kwargs, _nested(mod, args, kwargs, dynamic_shapes), **settings)

    return export


def _nested(mod: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None, shapes: Any) -> Any:
    """The shapes with those of `**kwargs` under the name of that parameter, where torch looks for them."""
    if not kwargs or not isinstance(shapes, dict) or not isinstance(mod, torch.nn.Module):
        return shapes
    signature = inspect.signature(mod.forward)
    name = next((one.name for one in signature.parameters.values() if one.kind is one.VAR_KEYWORD), None)
    bound = signature.bind(*args, **kwargs).arguments
    if name not in bound or name in shapes or not set(bound[name]) <= shapes.keys():
        return shapes
    return {
        **{one: shape for one, shape in shapes.items() if one not in bound[name]},
        name: {one: shapes[one] for one in bound[name]},
    }


def _each_once(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `torch.export._trace.make_constraints`."""

    @functools.wraps(original)
    def constrain(fake_mode: Any, gm: Any, combined_args: Any, dynamic_shapes: Any, *more: Any, **named: Any) -> Any:
        twice = _given_twice(combined_args, dynamic_shapes) if isinstance(dynamic_shapes, dict) else None
        if twice is not None:
            combined_args = {name: value for name, value in combined_args.items() if name != twice}
            by_name = {**dynamic_shapes, **dynamic_shapes[twice]}
            dynamic_shapes = {name: by_name[name] for name in combined_args}
        return original(fake_mode, gm, combined_args, dynamic_shapes, *more, **named)

    return constrain


def _given_twice(inputs: dict[str, Any], shapes: dict[str, Any]) -> str | None:
    """The name of the parameter `**kwargs`, where what it holds stands beside it too, and its shapes do not."""
    for name, value in inputs.items():
        if not isinstance(value, dict) or not value or name not in shapes or value.keys() & shapes.keys():
            continue
        if all(one in inputs and inputs[one] is each for one, each in value.items()):
            return name
    return None


def _by_own_name(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `torch._export.non_strict_utils.make_sourced_prefixes`."""

    @functools.wraps(original)
    def prefixes(*given: Any) -> Any:
        found = original(*given)
        for named in found.root.values():
            for path, source in named.items():
                if isinstance(path, py_pytree.MappingKey) and isinstance(source, _source("GetItemSource")):
                    named[path] = _source("LocalSource")(path.key)
        return found

    return prefixes


def _replacements() -> tuple[Replacement, ...]:
    found = (Replacement(_tracer(), _EXPORT, _by_either_name), Replacement(_tracer(), _CONSTRAIN, _each_once))
    return (*found, Replacement(_namer(), _NAME, _by_own_name)) if hasattr(_namer(), _NAME) else found


PATCH = Patch(
    name="variadic-keywords",
    replaces="_export and make_constraints of torch.export._trace, and how a trace names inputs (torch up to 2.15)",
    why="the dynamic shape of an input that a model takes as **kwargs is refused",
    page="docs/known-failures/variadic-keywords.md",
    probe=_probe,
    replacements=_replacements,
)
