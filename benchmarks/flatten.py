"""What flattening and rebuilding a cache costs, beside transformers' own registration and a plain list of pairs.

    python benchmarks/flatten.py [--layers 8 32 128] [--repeats 300] [--window W] [--check]

Run it with the newest transformers, kvconform on the path. One process, interleaved: each repeat times all three, so
that a busy machine slows all of them. Prints medians as ratios, whether the cost is linear in layers, and whether the
tensors of the rebuilt cache are those of the original (same data pointers, no torch operator run).

Targets with 32 layers, flatten and unflatten together: at most 0.75 times the list of (key, value) pairs, at most 1/5
of transformers' own. `--check` exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch.utils import _pytree as py_pytree
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.cache_utils import DynamicCache

from kvconform import probes, pytree, register_flattening_functions
from kvconform.pytree import Registration

PLAIN_TARGET = 0.75
OWN_TARGET = 0.2
# Twice the cost a layer at 128 layers as at 8 would be far from linear; noise on a shared machine is not.
LINEAR = 1.5


@dataclass(frozen=True)
class Contestant:
    """One way of turning a cache into leaves and back.

    Attributes:
        name: as printed.
        tree: what is flattened.
        registration: how DynamicCache is registered meanwhile. None: as it is, which the tree does not need.
    """

    name: str
    tree: Any
    registration: Registration | None


@dataclass(frozen=True)
class Cost:
    """Median microseconds."""

    flatten: float
    unflatten: float

    @property
    def total(self) -> float:
        """Of both."""
        return self.flatten + self.unflatten


class OperatorCount(TorchDispatchMode):
    """Counts the torch operators that run inside: a copy or an allocation is one."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ran.append(str(func))
        return func(*args, **(kwargs or {}))


def transformers_own() -> Registration | None:
    """How transformers itself registers DynamicCache: at import (4.50 to 4.55), by a call (4.56 and later), or not."""
    if DynamicCache in py_pytree.SUPPORTED_NODES:
        return pytree.current(DynamicCache)
    try:
        from transformers.integrations import executorch

        register: Callable[[], None] = executorch.register_dynamic_cache_export_support
    except (ImportError, AttributeError):
        return None
    register()
    own = pytree.current(DynamicCache)
    pytree.remove(DynamicCache)
    return own


def make_cache(layers: int, window: int | None) -> DynamicCache:
    """A cache of `layers` layers with three tokens, each other layer with a sliding window if one is given."""
    cache = DynamicCache()
    for index in range(layers):
        if window is not None and index % 2:
            cache.layers.append(probes.cache_class("DynamicSlidingWindowLayer")(sliding_window=window))
        cache.update(torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8), index)
    return cache


def pairs(cache: DynamicCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The tensors of a cache, two a layer."""
    if probes.has_layers():
        return [(layer.keys, layer.values) for layer in cache.layers]
    return list(zip(cache.key_cache, cache.value_cache, strict=True))


@contextmanager
def registered(contestant: Contestant) -> Any:
    """Have DynamicCache registered as a contestant wants it."""
    before = pytree.current(DynamicCache)
    if contestant.registration is not None:
        pytree.put(contestant.registration)
    try:
        yield
    finally:
        pytree.put(before)


def measure(contestants: list[Contestant], repeats: int, inner: int = 5) -> dict[str, Cost]:
    """Median cost of each contestant over interleaved repeats, `inner` round trips each."""
    flat: dict[str, list[float]] = {c.name: [] for c in contestants}
    back: dict[str, list[float]] = {c.name: [] for c in contestants}
    for _ in range(repeats):
        for contestant in contestants:
            with registered(contestant):
                start = time.perf_counter_ns()
                for _ in range(inner):
                    leaves, spec = py_pytree.tree_flatten(contestant.tree)
                middle = time.perf_counter_ns()
                for _ in range(inner):
                    py_pytree.tree_unflatten(leaves, spec)
                end = time.perf_counter_ns()
            flat[contestant.name].append((middle - start) / inner / 1000)
            back[contestant.name].append((end - middle) / inner / 1000)
    return {name: Cost(statistics.median(flat[name]), statistics.median(back[name])) for name in flat}


def copies(contestant: Contestant) -> str:
    """What a round trip did to the tensors; empty if nothing."""
    with registered(contestant), OperatorCount() as operators:
        leaves, spec = py_pytree.tree_flatten(contestant.tree)
        again = py_pytree.tree_leaves(py_pytree.tree_unflatten(leaves, spec))
    moved = sum(a.data_ptr() != b.data_ptr() for a, b in zip(leaves, again, strict=True))
    found = [f"{moved} of {len(leaves)} tensors have another data pointer"] if moved else []
    found += [f"operators ran: {sorted(set(operators.ran))}"] if operators.ran else []
    return "; ".join(found)


def contest(layers: int, window: int | None, repeats: int, own: Registration | None) -> tuple[dict[str, Cost], str]:
    """Measure all contestants on one cache; also what ours did to the tensors."""
    cache = make_cache(layers, window)
    with register_flattening_functions(patch_transformers=True):
        ours = Contestant("kvconform", cache, pytree.current(DynamicCache))
        plain = Contestant("pairs", pairs(cache), None)
        contestants = [ours, plain, *([Contestant("transformers", cache, own)] if own is not None else [])]
        for contestant in contestants:
            measure([contestant], 3)
        return measure(contestants, repeats), copies(ours)


def row(layers: int, costs: dict[str, Cost]) -> str:
    """One line of the table: costs of this shim, and the ratios to the others."""
    ours, plain, theirs = costs["kvconform"], costs["pairs"], costs.get("transformers")
    costs_of_each = [
        "      -       -" if cost is None else f"{cost.flatten:7.1f} {cost.unflatten:7.1f}"
        for cost in (ours, plain, theirs)
    ]
    to_theirs = "        -" if theirs is None else f"{ours.total / theirs.total:9.3f}"
    return "  ".join([f"{layers:6d}", *costs_of_each, f"{ours.total / plain.total:9.2f}", to_theirs])


def missed(measured: dict[int, dict[str, Cost]], copied: dict[int, str]) -> list[str]:
    """The targets that do not hold, in words."""
    found = [f"{layers} layers: {text}" for layers, text in copied.items() if text]
    if (costs := measured.get(32)) is not None:
        ours = costs["kvconform"].total
        if ours > PLAIN_TARGET * costs["pairs"].total:
            found.append(f"32 layers cost more than {PLAIN_TARGET} times the list of pairs")
        if "transformers" in costs and ours > OWN_TARGET * costs["transformers"].total:
            found.append(f"32 layers cost more than {OWN_TARGET} times transformers' own")
    if growth(measured) > LINEAR:
        found.append(f"a layer costs {growth(measured):.2f} times as much in the largest cache as in the smallest")
    return found


def growth(measured: dict[int, dict[str, Cost]]) -> float:
    """Cost a layer in the largest cache over that in the smallest; at most 1 if linear or better."""
    few, many = min(measured), max(measured)
    return (measured[many]["kvconform"].total / many) / (measured[few]["kvconform"].total / few)


def main() -> int:
    """Measure, print, compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--window", type=int, help="give each other layer a sliding window of this many tokens")
    parser.add_argument("--check", action="store_true")
    found = parser.parse_args()
    torch.set_num_threads(1)
    own = transformers_own()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    print("medians in microseconds: flatten unflatten; ratios of both together")
    print("layers        kvconform            pairs     transformers    / pairs  / transf.")
    measured: dict[int, dict[str, Cost]] = {}
    copied: dict[int, str] = {}
    gc.disable()
    for layers in found.layers:
        measured[layers], copied[layers] = contest(layers, found.window, found.repeats, own)
        print(row(layers, measured[layers]), flush=True)
    print(f"cost a layer, largest over smallest: {growth(measured):.2f} (linear: about 1 or less)")
    print(f"no tensor copied, no operator run: {'yes' if not any(copied.values()) else copied}")
    failures = missed(measured, copied)
    print("targets: " + ("all hold" if not failures else "; ".join(failures)))
    return 1 if failures and found.check else 0


if __name__ == "__main__":
    sys.exit(main())
