"""Contexts that can be entered again: kept in a constant, used as a decorator, nested, shared by threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator, contextmanager
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

__all__ = ["Reusable", "reusable"]

P = ParamSpec("P")
T = TypeVar("T")


def reusable(function: Callable[P, Iterator[T]]) -> Callable[P, Reusable[T]]:
    """Have a generator function give contexts that can be entered as often as is wished.

    What `contextlib.contextmanager` gives can be entered once. A second time it raises an AttributeError about itself.
    """

    @functools.wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> Reusable[T]:
        return Reusable(functools.partial(contextmanager(function), *args, **kwargs))

    return made


class Reusable(ContextDecorator, AbstractContextManager[T], Generic[T]):
    """A context that begins anew each time that it is entered, also inside itself and in other threads.

    Args:
        make: gives a context that can be entered once.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[T]]) -> None:
        self._make = make
        self._entered: list[tuple[int, AbstractContextManager[T]]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> T:
        """Begin a new context, and give what it gives."""
        context = self._make()
        found = context.__enter__()
        with self._lock:
            self._entered.append((threading.get_ident(), context))
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        """End the context that this thread entered last; where it entered none, the one that was entered last."""
        with self._lock:
            mine = [at for at, (thread, _) in enumerate(self._entered) if thread == threading.get_ident()]
            _, context = self._entered.pop(mine[-1] if mine else -1)
        return context.__exit__(kind, error, trace)
