"""The attributes of an object: all of them, in one order, and when two values are the same."""

from __future__ import annotations

import functools
from typing import Any

import torch

from kvconform import probes
from kvconform.context import LayerLeaf
from kvconform.errors import UnknownLayerError

__all__ = ["attributes", "in_mapping", "in_order", "in_slots", "same"]

_MODULE_INTERNALS = frozenset(vars(torch.nn.Module()))


def attributes(obj: Any) -> dict[str, Any]:
    """What an instance remembers.

    Raises:
        UnknownLayerError: it keeps something in a slot, which is no attribute here and would be lost, or under a
            name that no code can write or that a layer's leaf has (`key_D_0`): it would come back elsewhere.
    """
    state = in_mapping(obj)
    if not torch.compiler.is_dynamo_compiling():
        held = in_slots(obj)
        if held:
            raise _refused(obj, f"keeps {', '.join(held)} in slots, beside its attributes", "leave out __slots__")
        odd = [name for name in state if not _is_fine(name)]
        if odd:
            raise _refused(obj, f"has an attribute called {odd[0]!r}", "give it a name of Python's, and of no leaf")
    return state


@functools.cache
def _is_fine(name: str) -> bool:
    return name.isidentifier() and LayerLeaf.pattern.fullmatch(name) is None


def _refused(obj: Any, what: str, instead: str) -> UnknownLayerError:
    name = type(obj).__name__
    return UnknownLayerError(
        f"{name} {what} ({probes.release()}): {instead}, or describe the class with "
        f"kvconform.register_cache_adapter({name}, ...)"
    )


def in_mapping(obj: Any) -> dict[str, Any]:
    """What `vars` tells, without the machinery of torch.nn.Module (Cache was a Module until 4.49)."""
    state: dict[str, Any] = vars(obj)
    if not isinstance(obj, torch.nn.Module):
        return state
    own = {k: v for k, v in state.items() if k not in _MODULE_INTERNALS}
    return {**own, **obj._buffers, **obj._modules}


def in_slots(obj: Any) -> list[str]:
    """The slots of an object that hold something."""
    return [name for name in probes.slots(type(obj)) if hasattr(obj, name)]


def in_order(state: dict[str, Any], cls: type) -> list[tuple[str, Any]]:
    """Attributes in an order that does not depend on when each was set: the decoder's own cache, then by name.

    Args:
        state: the attributes of an object.
        cls: its class. Where a trace can look attributes up and cannot list them (torch 2.10 and 2.11), the names are
            taken from the code of the class, so that attributes which a user has added are not seen there.
    """
    if torch.compiler.is_dynamo_compiling() and not probes.dynamo_lists_attributes():
        names = sorted([name for name in probes.names_in_code(cls) if name in state], key=_place)
        return [(name, state[name]) for name in names]
    return sorted(state.items(), key=lambda item: _place(item[0]))


def _place(name: str) -> tuple[bool, str]:
    return (name != "self_attention_cache", name)


def same(left: Any, right: Any) -> bool:
    """Equality that tells 1 from True, looks into containers, and never guards on a symbol or a tensor."""
    if left is right:
        return True
    if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
        return False
    if type(left) is type(right) and isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if type(left) is type(right) and isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, torch.SymInt) or isinstance(right, torch.SymInt):
        return probes.statically_equal(left, right)
    return type(left) is type(right) and bool(left == right)
