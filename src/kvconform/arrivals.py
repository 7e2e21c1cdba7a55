"""Noticing cache classes that come into being while registration is active.

A model's module is often imported inside the block: `from_pretrained` imports it. Its cache classes must become nodes
then, as those of a module imported before the block do. Three things show a new class, and each is put back exactly
when nothing watches any more:

    subclasses of Cache         the `__init_subclass__` of Cache, whoever defines the subclass, also inside a function
    subclasses of ModelOutput   its own `__init_subclass__` (which registers the class with torch), and then this one
    other caches by name        an entry of `sys.meta_path`: the modules of `transformers.models` are looked through
                                when they have been executed (Qwen3NextDynamicCache and Lfm2HybridConvCache of 4.57 are
                                no subclasses of Cache)

The entry of `sys.meta_path` finds nothing by itself: it asks the finders after it, and has the loader that they give
tell when the module is complete. The module and its spec keep that loader, not ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["Watch"]

_MODELS = "transformers.models."
_HOOK = "__init_subclass__"


class Watch:
    """Tells of classes and modules that are new, between `start` and `stop`.

    Args:
        bases: the classes whose new subclasses are told.
        created: called with each new subclass, as soon as it exists; its module may be incomplete then.
        loaded: called with each module of `transformers.models`, after it was executed.
    """

    def __init__(
        self, bases: tuple[type, ...], created: Callable[[type], None], loaded: Callable[[ModuleType], None]
    ) -> None:
        self._hooks = [_Hook(base, created) for base in bases]
        self._finder = _Finder(loaded)

    def start(self) -> None:
        """Begin to tell."""
        for hook in self._hooks:
            hook.put()
        sys.meta_path.insert(0, self._finder)

    def stop(self) -> None:
        """Tell no more, and leave the classes and `sys.meta_path` as they were before `start`."""
        sys.meta_path.remove(self._finder)
        for hook in reversed(self._hooks):
            hook.take_back()


class _Hook:
    """The `__init_subclass__` of one class, and what stood there before."""

    def __init__(self, base: type, created: Callable[[type], None]) -> None:
        self._base = base
        self._created = created
        self._before: Any = None

    def put(self) -> None:
        before = self._before = vars(self._base).get(_HOOK)
        base, created = self._base, self._created

        def __init_subclass__(cls: type, /, **arguments: Any) -> None:  # noqa: N807 (it is put under that name)
            if before is None:
                super(base, cls).__init_subclass__(**arguments)  # type: ignore[arg-type]
            else:
                before.__get__(None, cls)(**arguments)
            created(cls)

        setattr(self._base, _HOOK, classmethod(__init_subclass__))

    def take_back(self) -> None:
        if self._before is None:
            delattr(self._base, _HOOK)
        else:
            setattr(self._base, _HOOK, self._before)


class _Finder:
    """An entry of `sys.meta_path` that has the loaders of some modules tell when a module is complete."""

    def __init__(self, loaded: Callable[[ModuleType], None]) -> None:
        self._loaded = loaded

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        finders = list(sys.meta_path)
        if not name.startswith(_MODELS) or self not in finders:
            return None
        # Only those after it: a finder before it may be another of this kind, which asks this one.
        for finder in finders[finders.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self._loaded)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """A loader that tells when it has executed a module, and that the module does not keep."""

    def __init__(self, loader: Any, loaded: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._loaded = loaded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._loaded(module)
