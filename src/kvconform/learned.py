"""What was learnt of classes, in one place, and how to forget it.

A layer or cache class is tried once, and the answer is kept for the life of the process. The tables below hold all
answers of this kind. They are plain dicts, not cached functions: torch.export(strict=True) reads them while it traces
(since torch 2.13), and dynamo can read a global dict but cannot follow a cached function. They are cleared in place,
never replaced, since other modules hold them by name.

| table | key | answer | filled by |
|---|---|---|---|
| `LAYERS` | layer class | its code and its usual attributes | `layers.layer_kinds` |
| `LAYERS_BY_CODE` | letters of a code, or `module:Name` of a model's class | the same | `layers.layer_kinds` |
| `CACHES` | cache class | the attributes of a new cache | `layers.cache_kinds` |
| `PATTERNS` | layer class | whether and how the fast path writes it | `layers.fast` |
| `PLANS` | cache class and context | how such a cache is rebuilt | `layers.plans` |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["CACHES", "LAYERS", "LAYERS_BY_CODE", "PATTERNS", "PLANS", "CacheModel", "LayerModel", "forget", "reset"]


@dataclass(frozen=True)
class LayerModel:
    """What a layer class remembers, learnt from an example of this release.

    Attributes:
        cls: the class.
        code: its letters in a context.
        config: the attribute whose value follows the letters in the code, if any.
        fresh: attributes and values of an example before its first update.
        ready: attributes and values after it. A context leaves out the values that a layer shares with these.
        constants: those of `ready` that neither tensors nor the code determine.
        reference: `module:Name` of a class that lives with its model, whose base the rest describes; else empty.
        changing: attributes of such a class whose number can change, so that it is a leaf.
        changing_inside: the same of numbers in lists and dicts.
    """

    cls: type
    code: str
    config: str | None
    fresh: dict[str, Any]
    ready: dict[str, Any]
    constants: tuple[tuple[str, Any], ...] = ()
    reference: str = ""
    changing: frozenset[str] = frozenset()
    changing_inside: frozenset[str] = frozenset()

    @property
    def counts_a_window(self) -> bool:
        """Whether its counter goes on past the length of its tensors, so that a counted cache has it as a leaf."""
        return self.config == "sliding_window"


@dataclass(frozen=True)
class CacheModel:
    """What a cache class remembers, learnt from a new cache of this release.

    Attributes:
        defaults: attributes of a new cache, without its layers and its constructor's arguments. Empty if the class
            cannot be tried.
        holds_caches: whether it is made of two caches (EncoderDecoderCache).
        unused: the list of layers that a cache made of caches has beside them, which nothing ever writes to: one layer
            in 4.54 and 4.55; None where it has no such list.
        keeps_arguments: whether it keeps the arguments with which its layers were made (4.54 and 4.55).
        keeps_compileable: whether it keeps `is_compileable` of its decoder's cache (EncoderDecoderCache, 4.49 to 4.55).
        slotted: whether a class of the user's keeps something in slots.
    """

    defaults: dict[str, Any] = field(default_factory=dict)
    holds_caches: bool = False
    unused: list[Any] | None = None
    keeps_arguments: bool = False
    keeps_compileable: bool = False
    slotted: bool = False


LAYERS: dict[type, LayerModel] = {}
LAYERS_BY_CODE: dict[str, LayerModel] = {}
CACHES: dict[type, CacheModel] = {}
PATTERNS: dict[type, Any] = {}
PLANS: dict[tuple[type, str], Any] = {}


def reset() -> None:
    """Forget everything. Each class is tried again when it is met next, which must not be inside a trace."""
    for table in (LAYERS, LAYERS_BY_CODE, CACHES, PATTERNS, PLANS):
        table.clear()


def forget(layer: type) -> None:
    """Forget one layer class, its code, and every plan, since a plan may name the code."""
    LAYERS.pop(layer, None)
    PATTERNS.pop(layer, None)
    PLANS.clear()
    for code in [code for code, model in LAYERS_BY_CODE.items() if model.cls is layer]:
        del LAYERS_BY_CODE[code]
