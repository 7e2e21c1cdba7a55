"""What an example or a check needs from a release, asked by looking and never by comparing versions."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class NotApplicableError(Exception):
    """The release lacks what the check is about."""


@dataclass(frozen=True)
class Need:
    """One requirement: `met` is asked without any subject, `reason` says what is lacking."""

    met: Callable[[], bool]
    reason: str

    def require(self) -> None:
        """Raise `NotApplicableError` unless the release has it."""
        if not self.met():
            raise NotApplicableError(self.reason)


def lookup(path: str) -> Any:
    """The object at `module:attribute`, or `None` where this release has no such module or attribute.

    A module that exists and cannot be imported raises: that is a broken environment, not an old release.
    """
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            return None
        raise
    for part in attribute.split(".") if attribute else ():
        # Lazy modules of transformers raise for names they do not know; getattr's default covers AttributeError only.
        try:
            found = getattr(found, part)
        except (AttributeError, ModuleNotFoundError):
            return None
    return found


def has(path: str) -> Need:
    """The release has the object at `module:attribute`."""
    return Need(lambda: lookup(path) is not None, f"this release has no {path.replace(':', '.')}")


def cache_class(name: str) -> Need:
    """The release has a class of that name in `transformers.cache_utils`.

    An alias of another class does not count.
    """

    def met() -> bool:
        found = lookup(f"transformers.cache_utils:{name}")
        return isinstance(found, type) and found.__name__ == name

    return Need(met, f"this release has no transformers.cache_utils.{name}")
