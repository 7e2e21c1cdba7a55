"""Faults that show in some caches only: from a number of layers on, at sizes of 1 and 0, in two caches at once."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from kvconform.checks.needs import lookup
from mutants.contexts import with_context
from mutants.plant import each, mutant, tensors
from mutants.tools import classes, layers_of, on_result, on_values, rewire


@mutant
def layers_sorted_as_text() -> None:
    """Layers come back in the order 0, 1, 10, 11, 2."""

    def sort(cache: Any) -> None:
        for name in ("layers", "key_cache", "value_cache"):
            held = cache.__dict__.get(name)
            if held:
                held[:] = [held[index] for index in sorted(range(len(held)), key=str)]

    each(unflatten=on_result(sort))


@mutant
def values_as_wide_as_keys() -> None:
    """Values are cut to the width of keys."""

    def cut(values: list[Any]) -> list[Any]:
        if len(values) % 2 or not all(isinstance(value, torch.Tensor) and value.dim() == 4 for value in values):
            return values
        pairs = zip(values[::2], values[1::2], strict=True)
        return [*itertools.chain(*((k, v[..., : k.shape[-1]] if v.shape[-1] > k.shape[-1] else v) for k, v in pairs))]

    each(unflatten=on_values(cut))


@mutant
def window_of_the_last_flattened() -> None:
    """Every sliding layer gets the window of whichever cache was flattened last."""
    held: dict[str, Any] = {}

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            for owner in (cache, *layers_of(cache)):
                held["window"] = vars(owner).get("sliding_window", held.get("window"))
            return flatten(cache)

        return changed

    def give(cache: Any) -> None:
        for owner in (cache, *layers_of(cache)):
            if "sliding_window" in vars(owner):
                owner.sliding_window = held.get("window")

    _of_all(flatten=wrap, unflatten=on_result(give))


@mutant
def gradients_detached() -> None:
    """Tensors that require a gradient come back detached."""
    each(unflatten=on_values(tensors(lambda tensor: tensor.detach() if tensor.requires_grad else tensor)))


def _first_size(cache: Any, dimension: int) -> int:
    held = [layer.keys for layer in layers_of(cache)] or vars(cache).get("key_cache", [])
    first = next((one for one in held if isinstance(one, torch.Tensor) and one.dim() == 4), None)
    return 0 if first is None else first.shape[dimension]


@mutant
def context_tells_batch_of_one() -> None:
    """The context says whether the batch is 1."""
    with_context(lambda cache: _first_size(cache, 0) == 1)


@mutant
def context_tells_length_of_one() -> None:
    """The context says whether the length is 1."""
    with_context(lambda cache: _first_size(cache, 2) == 1)


@mutant
def no_tokens_no_layer() -> None:
    """Tensors of length 0 come back as those of a layer that nothing was written to."""

    def empty(cache: Any) -> None:
        for layer in layers_of(cache):
            if (
                isinstance(layer.__dict__.get("keys"), torch.Tensor)
                and layer.keys.dim() == 4
                and not layer.keys.numel()
            ):
                layer.keys = layer.values = None
        for name in ("key_cache", "value_cache"):
            held = cache.__dict__.get(name) or []
            held[:] = [torch.tensor([]) if isinstance(one, torch.Tensor) and not one.numel() else one for one in held]

    each(unflatten=on_result(empty))


@mutant
def own_class_lost() -> None:
    """A subclass of the user's comes back as the class of transformers that it is made from."""
    module = lookup("transformers.cache_utils").__name__

    def back(cache: Any) -> None:
        if type(cache).__module__ != module:
            cache.__class__ = next(cls for cls in type(cache).__mro__ if cls.__module__ == module)

    _of_all(unflatten=on_result(back))


@mutant
def device_of_the_layer_stale() -> None:
    """A layer's `device`, or the cache's, is the one on which it was flattened, wherever its tensors are now."""
    for name in ("device", "dtype", "_dtype"):
        _stale(name)


def _stale(name: str) -> None:
    held: dict[int, Any] = {}

    def wrap(flatten: Any) -> Any:
        def changed(cache: Any) -> Any:
            leaves, context = flatten(cache)
            owners = enumerate((cache, *layers_of(cache)))
            held.update({index: vars(owner)[name] for index, owner in owners if name in vars(owner)})
            return leaves, context

        return changed

    def give(cache: Any) -> None:
        for index, owner in enumerate((cache, *layers_of(cache))):
            if name in vars(owner) and index in held:
                setattr(owner, name, held[index])

    each(flatten=wrap, unflatten=on_result(give))


def _of_all(**wrappers: Any) -> None:
    """Wrap the functions of every cache class that is registered, the user's own and those of single releases too."""
    import torch.utils._pytree as pytree

    base = lookup("transformers.cache_utils:Cache")
    for cls in {
        *classes(),
        *(cls for cls in pytree.SUPPORTED_NODES if isinstance(cls, type) and issubclass(cls, base)),
    }:
        rewire(cls, **wrappers)
