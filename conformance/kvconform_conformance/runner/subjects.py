"""Subjects: the registrations that are put to the checks, each a context manager that registers and undoes."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvconform_conformance.runner.needs import Need

WITH_PATCHES = "kvconform with patches"


class SubjectReferenceError(Exception):
    """A subject that cannot be found (exit code 2)."""


@dataclass(frozen=True)
class Subject:
    """A registration under test. `activate` registers on entering, and undoes what it does on leaving."""

    name: str
    activate: Callable[[], AbstractContextManager[Any]]
    needs: tuple[Need, ...] = ()


def _kvconform() -> AbstractContextManager[Any]:
    from kvconform import register_flattening_functions

    context: AbstractContextManager[Any] = register_flattening_functions(patch_transformers=True)
    return context


def _kvconform_with_patches() -> AbstractContextManager[Any]:
    from kvconform import exportable

    context: AbstractContextManager[Any] = exportable()
    return context


@contextlib.contextmanager
def _native() -> Iterator[None]:
    """What the release does by itself, plus its documented call where it has one; it is never undone."""
    register = _attribute("transformers.integrations.executorch", "register_dynamic_cache_export_support")
    if register is not None:
        register()
    yield


@contextlib.contextmanager
def _exporter() -> Iterator[None]:
    """The registration of transformers' own exporter, which asks for a model only to find that model's own caches."""
    register = _attribute("transformers.exporters.exporter_dynamo", "register_cache_pytrees_for_model")
    from transformers.cache_utils import DynamicCache

    # Any instance will do: the module that defines its class is searched for more caches.
    register(DynamicCache.__new__(DynamicCache))
    yield


def _attribute(module: str, name: str) -> Any:
    """An attribute of a module that a release may lack."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            return None
        raise


def _has_exporter() -> bool:
    return _attribute("transformers.exporters.exporter_dynamo", "register_cache_pytrees_for_model") is not None


BUILT_IN = {
    "kvconform": Subject("kvconform", _kvconform),
    WITH_PATCHES: Subject(WITH_PATCHES, _kvconform_with_patches),
    "native": Subject("native", _native),
    "exporter": Subject(
        "exporter", _exporter, (Need(_has_exporter, "this release has no transformers.exporters.exporter_dynamo"),)
    ),
}


def default_names() -> list[str]:
    """The subjects of a run that names none: `exporter` is one where the release has it.

    Its file is looked for: to import it would import torch and transformers, which this process leaves to its workers.
    """
    spec = importlib.util.find_spec("transformers")
    places = (spec.submodule_search_locations if spec else None) or ()
    ships = any(Path(place, "exporters", "exporter_dynamo.py").exists() for place in places)
    return ["kvconform", "native", WITH_PATCHES, *(["exporter"] if ships else [])]


def resolve(reference: str) -> Subject:
    """Find a subject by name or `module:attribute`.

    Raises:
        SubjectReferenceError: there is no such module or attribute, or it is no context manager and cannot give one.
    """
    if reference in BUILT_IN:
        return BUILT_IN[reference]
    module, colon, attribute = reference.partition(":")
    if not (colon and module and attribute):
        raise SubjectReferenceError(
            f"no subject {reference!r}: give one of {', '.join(map(repr, BUILT_IN))}, or module:attribute "
            "(for example: python -m kvconform check --subject my_package.export:register)"
        )
    return Subject(reference, _activation(_load(module, attribute, reference), reference))


def _load(module: str, attribute: str, reference: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SubjectReferenceError(
            f"no subject {reference!r}: {error}; try: python -c 'from {module} import {attribute.partition('.')[0]}'"
        ) from error
    return found


def _activation(found: Any, reference: str) -> Callable[[], AbstractContextManager[Any]]:
    """A context manager is used as it is (again and again); a callable is called for one each time."""
    if hasattr(found, "__enter__") and hasattr(found, "__exit__") and not isinstance(found, type):
        return lambda: found
    if not callable(found):
        raise SubjectReferenceError(
            f"subject {reference!r} is {type(found).__name__}, neither a context manager nor callable"
        )

    def activate() -> AbstractContextManager[Any]:
        context = found()
        if not hasattr(context, "__enter__"):
            raise TypeError(f"subject {reference!r} returned {type(context).__name__}, expected a context manager")
        return context  # type: ignore[no-any-return]

    return activate
