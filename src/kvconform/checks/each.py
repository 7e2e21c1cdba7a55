"""Each attribute of each cache and layer, held otherwise in one place than in all others.

In most caches the layers of one class agree in their flags, types and devices, and so do two caches made alike: an
attribute that is taken from another layer, or kept from an earlier cache, comes back right by chance. Here one place at
a time differs: from its neighbours, and from a second cache in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks import builders
from kvconform.checks.caches import EXAMPLES, Example
from kvconform.checks.errors import expect
from kvconform.checks.needs import Need
from kvconform.checks.trees import expect_registered
from kvconform.checks.whole import expect_same_cache, tensors_of

_PARTS = ("self_attention_cache", "cross_attention_cache")
_LISTS = ("layers", "key_cache")
_BOTH = {"cpu", "meta"}
_SHAPED = ("sliding_window", "_seen_tokens")
"""What the shapes of tensors tell or follow: with another number it is no cache that transformers makes."""


@dataclass(frozen=True)
class Place:
    """An attribute of one cache or layer: the index of its owner, and its name."""

    owner: int
    name: str


def with_attributes() -> tuple[Example, ...]:
    """The example caches, each of which needs an attribute that can hold another value by itself."""
    what = "attribute that can hold another value by itself"
    return tuple(_needing(example, _has_attributes, what) for example in EXAMPLES)


def with_devices() -> tuple[Example, ...]:
    """The example caches, each of which needs layers that can be on two devices."""
    return tuple(_needing(example, _mixes, "layers that can be on two devices") for example in EXAMPLES)


def _has_attributes(example: Example) -> bool:
    return any(True for _ in _places(_doubled(example)))


def _mixes(example: Example) -> bool:
    """Whether a release can make the cache on two devices; no subject takes part in that."""
    if not _can_be_joined(_built(example, 2, torch.float32, "cpu")):
        return False
    try:
        return _devices(_mixed(example, "cpu", "meta")) == _BOTH
    except RuntimeError as error:
        # HybridCache of 4.44 to 4.48 asks tensors for their elements when it is filled: it cannot be made on meta.
        if "meta tensors" not in str(error):
            raise
        return False


def _needing(example: Example, has: Callable[[Example], bool], what: str) -> Example:
    need = Need(partial(has, example), f"{example.about}: this cache has no {what}")
    return replace(example, needs=(*example.needs, need))


def expect_each_attribute(example: Example) -> None:
    """Prove that each attribute of a cache comes back where it was, though its neighbours have another value.

    The cache has the layers of two caches, of other sizes and types. A second one, of another window and all of whose
    attributes are as they were made, is flattened before it and rebuilt after it.
    """
    __tracebackhide__ = True
    expect_registered(example.build(), example.where)
    cache = _doubled(example)
    with builders.sizes(replace(builders.now(), window=builders.WINDOW + 1)):
        plain = _doubled(example)
    for place in [*_places(cache)]:
        owner = owners(cache)[place.owner]
        kept = getattr(owner, place.name)
        where = f"{example.where}; {type(owner).__name__}.{place.name} of owner {place.owner} differs"
        mine = place.name in vars(owner)
        for changed in others(kept):
            vars(owner)[place.name] = changed
            flown = [(one, *pytree.tree_flatten(one)) for one in (plain, cache)]
            for one, leaves, spec in reversed(flown):
                expect_same_cache(pytree.tree_unflatten(leaves, spec), one, "lost in a round trip", leaves, where)
        if mine:
            vars(owner)[place.name] = kept
        else:
            del vars(owner)[place.name]


def expect_mixed_devices(example: Example) -> None:
    """Prove that a cache comes back whose layers are on two devices, the CPU and meta, as split models have them."""
    __tracebackhide__ = True
    expect_registered(example.build(), example.where)
    for first, second in (("cpu", "meta"), ("meta", "cpu")):
        cache = _mixed(example, first, second)
        leaves, spec = pytree.tree_flatten(cache)
        where = f"{example.where}; layers on {first}, then on {second}"
        expect_same_cache(pytree.tree_unflatten(leaves, spec), cache, "lost in a round trip", leaves, where)


def with_layers() -> tuple[Example, ...]:
    """One example of each kind of layer that a user would derive from; they need layers that are objects."""
    names = ("dynamic-two-layers", "sliding-past", "static-below")
    held = [example for example in EXAMPLES if example.name in names]
    return tuple(_needing(example, lambda one: bool(vars(one.build()).get("layers")), "layers") for example in held)


def expect_own_layers(example: Example) -> None:
    """Prove that a layer of the user's own class comes back as that, with what it holds, or is refused by an error.

    An error tells whoever exports that the class is unknown. A layer of the class that it was derived from computes
    something else, and nobody is told.
    """
    __tracebackhide__ = True
    cache = example.build()
    expect_registered(cache, example.where)
    for index, layer in enumerate(cache.layers):
        layer.__class__ = _own(type(layer))
        layer.own_note = f"layer {index}"
    _expect_same_or_refused(cache, type(cache.layers[0]), "lost of layers of a user's class", example.where)


def with_slots() -> list[tuple[str, Any]]:
    """Caches of the user's own subclasses that keep something in slots, beside their attributes, by what they are."""
    names = ("dynamic-two-layers", "static-below", "encoder-decoder")
    found = []
    for example in (example for example in EXAMPLES if example.name in names):
        cache = example.build()
        made: Any = object.__new__(_own(type(cache), "Slotted", __slots__=("own_number", "own_note")))
        vars(made).update(vars(cache))
        made.own_number, made.own_note = 3, {"kept": [example.name]}
        found.append((example.where, made))
    return found


def expect_own_slots(cache: Any, where: str) -> None:
    """Prove that what a cache keeps in slots comes back, or that its class is refused by an error."""
    __tracebackhide__ = True
    expect_registered(cache, where)
    _expect_same_or_refused(cache, type(cache), "lost of what is in slots", where)


def _expect_same_or_refused(cache: Any, cls: type, what: str, where: str) -> None:
    __tracebackhide__ = True
    try:
        leaves, spec = pytree.tree_flatten(cache)
        restored = pytree.tree_unflatten(leaves, spec)
    except Exception as error:  # noqa: BLE001 - whatever a registration refuses an unknown class with
        told = str(error)
        expect(cls.__name__ in told, f"the error does not name the class {cls.__name__}: {told[:200]}", where)
        return
    expect_same_cache(restored, cache, what, leaves, where)


def _own(cls: type, word: str = "Own", **more: Any) -> type:
    """The user's subclass of a class, made once and found by pickle."""
    name = f"{word}{cls.__name__}"
    if name not in globals():
        namespace = {"__module__": __name__, "__qualname__": name, "__doc__": "A user's class.", **more}
        globals()[name] = type(name, (cls,), namespace)
    found: type = globals()[name]
    return found


def owners(cache: Any) -> list[Any]:
    """The cache and its layers, those of the caches inside it too."""
    return [owner for one in _caches(cache) for owner in (one, *(vars(one).get("layers") or ()))]


def others(value: Any) -> list[Any]:
    """Other values of the same kind: none where there is none that an attribute could hold by itself.

    Numbers become larger by a little, zero, and one that loses digits when it is written with six or seven, or held by
    the types that keys and values have.
    """
    if isinstance(value, dict):
        each = [others(held) for held in value.values()]
        return [dict(zip(value, held, strict=True)) for held in zip(*each, strict=False)]
    changed: tuple[Any, ...] = next((change(value) for kind, change in _OTHERS if isinstance(value, kind)), ())
    return [other for other in changed if other != value]


_OTHERS: tuple[tuple[type, Callable[[Any], tuple[Any, ...]]], ...] = (
    (bool, lambda value: (not value,)),
    (int, lambda value: (value + 3, 0, 1_234_567)),
    (float, lambda value: (value + 3, value + 1 / 3)),
    (torch.dtype, lambda value: (torch.float32 if value == torch.float64 else torch.float64,)),
    (torch.device, lambda _: (torch.device("cuda", 1),)),
)


def _places(cache: Any) -> Iterator[Place]:
    for index, owner in enumerate(owners(cache)):
        # What every module has is torch's, not a cache's (caches were modules until 4.49).
        skipped = set(vars(torch.nn.Module())) if isinstance(owner, torch.nn.Module) else set()
        for name, value in {**_of_the_class(owner), **vars(owner)}.items():
            if name not in (*_SHAPED, *skipped) and others(value):
                yield Place(index, name)


def _of_the_class(owner: Any) -> dict[str, Any]:
    """What the classes of transformers say of each of their objects, and one object can be told otherwise."""
    classes = [cls for cls in reversed(type(owner).__mro__) if cls.__module__.startswith("transformers.")]
    return {
        name: value for cls in classes for name, value in vars(cls).items() if isinstance(value, (bool, int, float))
    }


def _doubled(example: Example) -> Any:
    """A cache with the layers of two, of other sizes, types and windows; one as it is where they cannot be joined."""
    cache = _built(example, 2, torch.float32, "cpu")
    if not _can_be_joined(cache):
        return cache
    with builders.sizes(replace(builders.now(), window=builders.WINDOW + 2)):
        return _joined(cache, _built(example, 3, torch.float64, "cpu"))


def _mixed(example: Example, first: str, second: str) -> Any:
    return _joined(_built(example, 2, torch.float32, first), _built(example, 2, torch.float32, second))


def _devices(cache: Any) -> set[str]:
    return {tensor.device.type for tensor in tensors_of(cache)}


def _built(example: Example, batch: int, dtype: torch.dtype, device: str) -> Any:
    return example.builder(batch, 3, dtype, device)


def _joined(cache: Any, more: Any) -> Any:
    """The first cache, with the layers of the second after its own."""
    for mine, theirs in zip(_caches(cache), _caches(more), strict=True):
        layers = next((vars(mine)[name] for name in _LISTS if name in vars(mine)), ())
        # A cache has lists beside that of its layers which have an entry a layer, as HybridCache's is_sliding.
        beside = [name for name, value in vars(mine).items() if type(value) is list and len(value) == len(layers)]
        for name in beside:
            vars(mine)[name].extend(vars(theirs)[name])
    return cache


def _can_be_joined(cache: Any) -> bool:
    """Whether layers can be added to a cache: not where each is a buffer of its own name (static ones until 4.48)."""
    return not any(isinstance(one, torch.nn.Module) and one._buffers for one in _caches(cache))


def _caches(cache: Any) -> list[Any]:
    """The cache and those inside it, which are no attributes of its own but submodules until 4.48."""
    return [cache, *(getattr(cache, name) for name in _PARTS if hasattr(cache, name))]
