"""Nodes that are missing from a table, or disagree between tables."""

from __future__ import annotations

import torch.fx._pytree as fx_pytree
import torch.utils._pytree as pytree

from mutants.plant import each, mutant
from mutants.tools import classes, rewire_fx


@mutant
def paths_all_alike() -> None:
    """Every leaf has the same path."""
    each(
        with_keys=lambda keyed: (
            lambda cache: ([(pytree.MappingKey("cache"), leaf) for _, leaf in keyed(cache)[0]], keyed(cache)[1])
        )
    )


@mutant
def paths_reversed() -> None:
    """Flattening with paths gives the leaves backwards."""
    each(with_keys=lambda keyed: lambda cache: (keyed(cache)[0][::-1], keyed(cache)[1]))


@mutant
def fx_missing() -> None:
    """The classes are not in the tables of torch.fx."""
    for cls in classes():
        fx_pytree.SUPPORTED_NODES.pop(cls, None)


@mutant
def fx_reversed() -> None:
    """The tables of torch.fx give the leaves backwards."""
    for cls in classes():
        rewire_fx(cls, lambda leaves: leaves[::-1])


@mutant
def fx_one_short() -> None:
    """The tables of torch.fx give one leaf too few."""
    for cls in classes():
        rewire_fx(cls, lambda leaves: leaves[:-1])


@mutant
def only_dynamic() -> None:
    """Only DynamicCache is registered."""
    for cls in classes():
        if cls.__name__ != "DynamicCache":
            pytree.SUPPORTED_NODES.pop(cls)


@mutant
def no_serialized_name() -> None:
    """The classes have no serialized name: a saved program cannot tell them."""
    for cls in classes():
        pytree.SUPPORTED_SERIALIZED_TYPES.pop(cls, None)
