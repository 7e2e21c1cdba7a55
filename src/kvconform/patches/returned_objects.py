"""Objects that a module was given, and returns, in a strict export of torch up to 2.9.

Dynamo runs the code of a module symbolically, and then writes bytecode that makes what the module returned. An export
ignores where a value came from and makes each anew; that cannot be done for an object of a class, so that a decode
step which returns the cache it was given is refused. The object need not be made: it is among the arguments, and the
same bytecode has written to it what the module did. torch.export flattens that object itself, and finds in its leaves
what its program returns.

What was written stays in the object: symbolic tensors, in a cache of the caller. So a strict export is given new
objects around the same tensors. The tensors of a StaticCache are marked as standing at one address, for compiled
decoding; Dynamo makes constants of the program of such ones, so that they lose the mark as long as they are traced.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed

__all__ = ["PATCH", "flattens_inside"]

_MARK = "_dynamo_static_input_type"


def _variables() -> ModuleType:
    """The module of Dynamo's that knows objects; it is there whenever torch.export is."""
    return importlib.import_module("torch._dynamo.variables.user_defined")


def _probe() -> Answer:
    if not hasattr(_variables(), "UserDefinedObjectVariable"):
        return not_applicable("Dynamo of this torch knows objects by another name")
    if flattens_inside():
        return not_needed("strict export of this torch flattens what a module returns while it is traced")
    if _gives_back():
        return not_needed("Dynamo of this torch gives back an object that came in")
    return needed("Dynamo of this torch has no way to give back an object that came in")


def flattens_inside() -> bool:
    """Whether strict export leaves `torch._dynamo.export` aside for a tracer that flattens what a module returns."""
    try:
        settings = importlib.import_module("torch._export.config")
    except ModuleNotFoundError:
        return False
    return bool(getattr(settings, "use_new_tracer_experimental", False))


def _gives_back() -> bool:
    source = importlib.import_module("torch._dynamo.source").LocalSource("given")
    given = _variables().UserDefinedObjectVariable(_Given(), source=source)
    try:
        given.reconstruct(lambda _: None)
    except Exception:  # noqa: BLE001 (whatever torch raises here, its answer is no)
        return False
    return True


class _Given:
    """An object that came in."""


def _from_where_it_came(original: Callable[..., Any] | None) -> Callable[..., None]:
    """What stands for `UserDefinedObjectVariable.reconstruct`."""
    variable: Any = _variables().UserDefinedObjectVariable

    def reconstruct(self: Any, codegen: Any) -> None:
        if self.source is not None and codegen.tx.export:
            codegen(self.source)
        elif original is not None:
            original(self, codegen)
        else:
            super(variable, self).reconstruct(codegen)

    return reconstruct


def _with_new_objects(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `torch._dynamo.export`, whose result is called with the arguments."""

    @functools.wraps(original)
    def export(*settings: Any, **named: Any) -> Any:
        capture = original(*settings, **named)

        @functools.wraps(capture)
        def on_new_objects(*args: Any, **kwargs: Any) -> Any:
            leaves, spec = py_pytree.tree_flatten((args, kwargs))
            args, kwargs = py_pytree.tree_unflatten(leaves, spec)
            with _at_no_address(leaves):
                return capture(*args, **kwargs)

        return on_new_objects

    return export


@contextmanager
def _at_no_address(leaves: list[Any]) -> Iterator[None]:
    """Inside the block no tensor among the leaves has the mark of `torch._dynamo.mark_static_address`."""
    marked = [(leaf, vars(leaf)[_MARK]) for leaf in leaves if isinstance(leaf, torch.Tensor) and hasattr(leaf, _MARK)]
    for leaf, _ in marked:
        delattr(leaf, _MARK)
    try:
        yield
    finally:
        for leaf, mark in marked:
            setattr(leaf, _MARK, mark)


def _replacements() -> tuple[Replacement, ...]:
    return (
        Replacement(_variables().UserDefinedObjectVariable, "reconstruct", _from_where_it_came),
        Replacement(torch._dynamo, "export", _with_new_objects),
    )


PATCH = Patch(
    name="returned-objects",
    replaces="torch._dynamo.export, and how Dynamo reconstructs an object in a strict export (torch up to 2.9)",
    why="a strict export cannot return a cache that it was given",
    page="docs/known-failures/strict-returns-cache.md",
    probe=_probe,
    replacements=_replacements,
)
