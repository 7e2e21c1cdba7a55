"""Layer classes that live with one model, in `transformers.models`: found there, named in a context, and explained.

DeepSeek V4 (5.23) has a subclass of DynamicSlidingWindowLayer beside its model, and so have others. No list names them:

    what is known      that of the nearest base in transformers.cache_utils; the rules of that base hold
    what is added      attributes of its own: tensors are leaves, also inside lists and dicts; the rest is JSON
    numbers            one that only a constructor sets is JSON. One that any other function of the module writes to
                       can change with every token, and a context never tells a length: it is a leaf
    in a context       the letters of the base after an `M`, and a fact that names the class

A context may come from a file of a stranger. The class that it names is therefore looked up in `transformers.models`
alone, and must be a layer class that is defined there. Only a `modeling_` module is imported for it: the folders of the
models also hold scripts.
"""

from __future__ import annotations

import contextlib
import dis
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from kvconform import probes
from kvconform.errors import CacheStructureError

__all__ = ["class_named", "is_of_a_model", "layer_classes_of_models", "name_of", "numbers_that_change"]

_MODULE = re.compile(r"transformers\.models(?:\.[A-Za-z_]\w*)+", re.ASCII)
_REFERENCE = re.compile(rf"(?P<module>{_MODULE.pattern}):(?P<name>[A-Za-z_]\w*)", re.ASCII)
_INTO_CONTAINERS = frozenset({"STORE_SUBSCR", "DELETE_SUBSCR"})
_CHANGE_CONTAINERS = frozenset({"append", "clear", "extend", "insert", "pop", "popitem", "setdefault", "update"})


def is_of_a_model(cls: type) -> bool:
    """Whether a class is what a module of `transformers.models` has under its name, so that a context can name it."""
    if _REFERENCE.fullmatch(name_of(cls)) is None:
        return False
    return getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls


def name_of(cls: type) -> str:
    """How a context names a class: `module:Name`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def class_named(reference: Any) -> type:
    """The class of a model that a context names.

    Raises:
        CacheStructureError: it names something outside `transformers.models`, or nothing that is a class of this
            release. Outside of `transformers.models` nothing is looked up, and nothing is imported.
    """
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        raise CacheStructureError(
            f"the context gives a layer the class {reference!r}, which is not in transformers.models: pass the context "
            "of a flatten (a class of your own has a code: kvconform.register_layer)"
        )
    module = match["module"]
    if module not in sys.modules and module.rpartition(".")[2].startswith("modeling_"):
        # A saved program is often loaded before its model. What cannot be imported has no class here.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    found = getattr(sys.modules.get(module), match["name"], None)
    if not isinstance(found, type) or name_of(found) != reference:
        raise CacheStructureError(
            f"the context gives a layer the class {reference}, which does not exist here ({probes.release()}): load it "
            "with the release that wrote it, or one that has the class"
        )
    return found


def layer_classes_of_models() -> Iterator[type]:
    """Every layer class of a model whose module is imported now."""
    base = probes.cache_class("CacheLayerMixin")
    todo: list[type] = [] if base is None else base.__subclasses__()
    seen: set[type] = set()
    while todo:
        cls = todo.pop()
        if cls not in seen:
            seen.add(cls)
            todo.extend(cls.__subclasses__())
            if is_of_a_model(cls):
                yield cls


def numbers_that_change(cls: type, base: type) -> tuple[frozenset[str], frozenset[str]]:
    """The attributes whose numbers can change after construction, read off the code of the module.

    It may name too many: a number that is a leaf and never changes does no harm, and a number in a context that changes
    does. What a constructor does is no change.

    Args:
        cls: a layer class of a model.
        base: the class of transformers.cache_utils whose rules hold for the rest.

    Returns:
        The attributes that a function stores, and those that a function may change inside, if they are containers
        (`self.entry_count[name] += 1`). The second holds the first.
    """
    own = cls.__mro__[: cls.__mro__.index(base)]
    modules = [vars(sys.modules[one.__module__]) for one in own if one.__module__ in sys.modules]
    values = [value for module in modules for value in module.values()]
    classes = {*own, *(value for value in values if isinstance(value, type) and is_of_a_model(value))}
    functions = [value for value in values if inspect.isfunction(value)]
    functions += [value for one in classes for value in _methods(one)]
    stored: set[str] = set()
    inside: set[str] = set()
    for function in functions:
        for code in _codes(function.__code__):
            instructions = list(dis.get_instructions(code))
            stored |= {one.argval for one in instructions if one.opname == "STORE_ATTR"}
            if not _INTO_CONTAINERS.isdisjoint(one.opname for one in instructions) or not _CHANGE_CONTAINERS.isdisjoint(
                code.co_names
            ):
                inside |= {*code.co_names}
    return frozenset(stored), frozenset(stored | inside)


def _methods(cls: type) -> Iterator[FunctionType]:
    for name, value in vars(cls).items():
        parts = (value.fget, value.fset) if isinstance(value, property) else (value,)
        for part in parts:
            function = inspect.unwrap(part) if callable(part) else None
            if name != "__init__" and isinstance(function, FunctionType):
                yield function


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and that of the functions and comprehensions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
