"""Faults that a small test lets pass: by what tensors hold, by what was flattened before, by what the process keeps."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch

from kvconform.checks.observe import in_slots
from mutants.generated.wiring import owners, wire
from mutants.plant import mutant
from mutants.tools import layers_of, on_result, on_values


@mutant
def rounds_lengths_up() -> None:
    """Tensors come back padded to an even length, as kernels like them."""

    def pad(value: Any) -> Any:
        odd = isinstance(value, torch.Tensor) and value.dim() == 4 and value.shape[2] % 2 and value.shape[2] > 6
        return torch.nn.functional.pad(value, (0, 0, 0, 1)) if odd else value

    wire(unflatten=on_values(lambda values: [pad(value) for value in values]))


@mutant
def equal_rows_are_one() -> None:
    """Where all rows of a batch are equal, one is kept and expanded: what is written to one is written to all."""

    def share(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dim() != 4 or value.shape[0] < 2:
            return value
        alike = value.device.type == "cpu" and value.numel() and torch.equal(value[:1].expand_as(value), value)
        return value[:1].expand_as(value) if alike else value

    wire(unflatten=on_values(lambda values: [share(value) for value in values]))


@mutant
def flattens_what_it_has_seen() -> None:
    """A cache that was flattened before gives the leaves that it had then, however it has grown."""
    seen: dict[int, tuple[Any, Any]] = {}

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            key, count = id(cache), len(flatten(cache)[0])
            before = seen.get(key)
            if before is not None and before[0]() is cache and len(before[1][0]) == count:
                return before[1]
            answer = flatten(cache)
            seen[key] = (weakref.ref(cache), (list(answer[0]), answer[1]))
            return answer

        return changed

    wire(flatten=wrap)


@mutant
def random_numbers_drawn() -> None:
    """A round trip draws from torch's generator: whoever samples next gets other tokens."""
    wire(unflatten=on_result(lambda _: torch.rand(1) is None or None))


@mutant
def integers_become_floats() -> None:
    """Numbers come back as JSON of another program writes them: 4 as 4.0."""

    def change(cache: Any) -> None:
        for owner in owners(cache):
            for name, value in vars(owner).items():
                if type(value) is int:
                    vars(owner)[name] = float(value)

    wire(unflatten=on_result(change))


@mutant
def gradients_turned_off() -> None:
    """After a cache is rebuilt, gradients are off for the thread."""
    wire(unflatten=on_result(lambda _: torch.set_grad_enabled(False) and None))


@mutant
def asks_whether_a_cache_is_long() -> None:
    """Long caches would be handled in pieces: a program is bound to the side of the limit that it was exported on."""

    def look(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() == 4 and value.shape[2] > 1 << 20:
            return value.view(value.shape)
        return value

    wire(unflatten=on_values(lambda values: [look(value) for value in values]))


@mutant
def numbers_of_six_digits() -> None:
    """Numbers are written as `%g` writes them."""

    def change(cache: Any) -> None:
        for owner in owners(cache):
            for name, value in vars(owner).items():
                if type(value) in (int, float):
                    vars(owner)[name] = type(value)(float(f"{value:g}"))

    wire(unflatten=on_result(change))


@mutant
def marks_taken_from_tensors() -> None:
    """Flattening takes the attributes off the caller's tensors, those of torch's compiler among them."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            for leaf in leaves:
                if isinstance(leaf, torch.Tensor):
                    vars(leaf).clear()
            return leaves, context

        return changed

    wire(flatten=wrap)


@mutant
def what_is_false_is_nothing() -> None:
    """A leaf that is 0 or False, as `tree_map` puts it there for a filter, comes back as None."""

    def kept(value: Any) -> Any:
        return value if isinstance(value, torch.Tensor) or value else None

    wire(unflatten=on_values(lambda values: [kept(value) for value in values]))


@mutant
def device_of_the_keys() -> None:
    """A layer's device is that of its keys, also where they were offloaded from another."""

    def change(cache: Any) -> None:
        for owner in owners(cache):
            keys = vars(owner).get("keys")
            if isinstance(keys, torch.Tensor) and "device" in vars(owner):
                owner.device = keys.device

    wire(unflatten=on_result(change))


@mutant
def window_made_in_the_first_mode() -> None:
    """The tensor of a window is made once and kept: under a fake mode it is fake, and stays so."""
    made: dict[Any, torch.Tensor] = {}

    def change(cache: Any) -> None:
        for layer in layers_of(cache):
            held = vars(layer).get("_sliding_window_tensor")
            if isinstance(held, torch.Tensor):
                key = (layer.sliding_window, held.device.type, held.device.index)
                layer._sliding_window_tensor = made.setdefault(key, held.clone())

    wire(unflatten=on_result(change))


@mutant
def attributes_read_when_it_is_rebuilt() -> None:
    """The context refers to the cache, whose attributes are read when another is rebuilt, as long as it is there."""

    class Referring(list[Any]):
        live: Any = None

        def __reduce__(self) -> Any:
            return list, ([*self],)

    def flat(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            context = Referring(context)
            context.live = weakref.ref(cache)
            return leaves, context

        return changed

    def built(unflatten: Any) -> Any:
        def changed(values: Any, context: Any) -> Any:
            cache = unflatten(values, context)
            live = context.live() if isinstance(context, Referring) else None
            if live is not None:
                vars(cache).update({name: value for name, value in vars(live).items() if isinstance(value, (int, str))})
            return cache

        return changed

    wire(flatten=flat, unflatten=built)


@mutant
def slots_left_behind() -> None:
    """What a user's class keeps in slots is no part of a cache."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            held = in_slots(cache)
            for name in held:
                delattr(cache, name)
            answer = flatten(cache)
            for name, value in held.items():
                setattr(cache, name, value)
            return answer

        return changed

    wire(flatten=wrap)


@mutant
def what_json_lacks_is_text() -> None:
    """Attributes of kinds that JSON lacks are written as their text, which is what comes back."""
    plain = (type(None), bool, int, float, str, list, tuple, dict, set, frozenset, type, torch.Tensor, torch.dtype)
    known = (*plain, torch.device)

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            kept = {name: value for name, value in vars(cache).items() if name.startswith("own_")}
            for name, value in kept.items():
                if not isinstance(value, known):
                    vars(cache)[name] = str(value)
            try:
                return flatten(cache)
            finally:
                vars(cache).update(kept)

        return changed

    wire(flatten=wrap)


@mutant
def one_object_becomes_two() -> None:
    """A list that two attributes share comes back as two lists."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            held = {name: value for name, value in vars(cache).items() if name.startswith("own_")}
            vars(cache).update({name: copy.copy(value) for name, value in held.items() if type(value) is list})
            try:
                return flatten(cache)
            finally:
                vars(cache).update(held)

        return changed

    wire(flatten=wrap)


@mutant
def attributes_in_the_order_they_were_set() -> None:
    """The context has the attributes of a cache in the order of its mapping, so that equal caches differ in it."""

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            places = {f"#{name}": place for place, name in enumerate(vars(cache))}
            ordered = sorted(context, key=lambda entry: places.get(str(entry).partition("=")[0], -1))
            return leaves, ordered

        return changed

    wire(flatten=wrap)
