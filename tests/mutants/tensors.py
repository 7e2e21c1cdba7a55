"""Tensors that are other tensors, or in another order, after the round trip."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from mutants.plant import each, mutant, tensors
from mutants.tools import on_leaves, on_result, on_values


@mutant
def none() -> None:
    """Nothing is wrong: what fails for this one is no kill."""


@mutant
def flatten_clones() -> None:
    """Flattening copies the tensors."""
    each(flatten=on_leaves(tensors(torch.clone)))


@mutant
def unflatten_clones() -> None:
    """Unflattening copies the tensors."""
    each(unflatten=on_values(tensors(torch.clone)))


@mutant
def unflatten_detaches() -> None:
    """Unflattening detaches: equal elements, other tensor objects."""
    each(unflatten=on_values(tensors(lambda tensor: tensor.detach())))


@mutant
def values_before_keys() -> None:
    """Unflattening swaps the keys and values of each layer."""
    each(
        unflatten=on_values(
            lambda values: [*itertools.chain(*zip(values[1::2], values[::2]))] if len(values) % 2 == 0 else values  # noqa: B905 - equal lengths are checked or wrong on purpose
        )
    )


@mutant
def leaves_reversed() -> None:
    """Unflattening takes the leaves backwards."""
    each(unflatten=on_values(lambda values: values[::-1]))


@mutant
def keys_first() -> None:
    """Leaves are all keys, then all values."""
    each(
        flatten=on_leaves(lambda leaves: [*leaves[::2], *leaves[1::2]] if _paired(leaves) else leaves),
        unflatten=on_values(
            lambda values: (
                [*itertools.chain(*zip(values[: len(values) // 2], values[len(values) // 2 :]))]  # noqa: B905 - equal lengths are checked or wrong on purpose
                if _paired(values)
                else values
            )
        ),
    )


def _paired(leaves: list[Any]) -> bool:
    return len(leaves) % 2 == 0 and all(isinstance(leaf, torch.Tensor) for leaf in leaves)


@mutant
def last_layer_dropped() -> None:
    """The last layer is lost."""

    def drop(cache: Any) -> None:
        for name in ("layers", "key_cache", "value_cache"):
            held = cache.__dict__.get(name)
            if held:
                held.pop()

    each(unflatten=on_result(drop))


@mutant
def layer_added() -> None:
    """A layer is there twice."""

    def add(cache: Any) -> None:
        for name in ("layers", "key_cache", "value_cache"):
            held = cache.__dict__.get(name)
            if held:
                held.append(held[-1])

    each(unflatten=on_result(add))


@mutant
def cast_to_float32() -> None:
    """Unflattening gives float32 whatever went in."""
    each(unflatten=on_values(tensors(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)))


@mutant
def cast_to_float16() -> None:
    """Unflattening halves the precision."""
    each(unflatten=on_values(tensors(lambda tensor: tensor.half() if tensor.is_floating_point() else tensor)))


@mutant
def moved_to_cpu() -> None:
    """Unflattening gives tensors on the CPU, whatever device they were on."""
    each(
        unflatten=on_values(
            tensors(
                lambda tensor: (
                    torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
                    if tensor.device.type != "cpu"
                    else tensor
                )
            )
        )
    )
