"""Device: where tensors are after a round trip and a move; fake CUDA everywhere, real with `--device cuda`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree

from kvconform.checks import builders, making, moves, spaces, trees
from kvconform.checks.caches import EXAMPLES, Example, examples
from kvconform.checks.cases import Case
from kvconform.checks.errors import expect_equal
from kvconform.checks.many import expect_for_all
from kvconform.checks.observe import differences, observe
from kvconform.checks.whole import expect_same_cache, expect_same_leaves, expect_whole
from kvconform_conformance.runner.needs import needs, needs_cuda

of = pytest.mark.parametrize(
    "example",
    examples("dynamic-two-layers", "sliding-past", "mixed-past", "encoder-decoder", "static-below"),
    ids=lambda r: r.name,
)


MOVES = {"half": moves.to_type(torch.float16), "double": moves.to_type(torch.float64), "meta": moves.to_device("meta")}


def _devices(cache: Any) -> list[str]:
    """The devices of everything that holds keys, values or states."""
    tensors = [atom for atom in observe(cache).values() if isinstance(atom, torch.Tensor) and atom.dim() > 1]
    return sorted({tensor.device.type for tensor in tensors})


def _moved(cache: Any, device: str) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), cache)


def _fake_moved(cache: Any) -> Any:
    """Move by allocating anew.

    Torch asks the driver for some `.to("cuda")` and `empty_like` even of a fake tensor.
    """

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")

    return pytree.tree_map_only(torch.Tensor, moved, cache)


_OWN_WINDOW = 7919


@of
def test_fake_round_trip(registered: object, example: Example) -> None:
    """A cache of fake CUDA tensors comes back on CUDA, unallocated, with the same counters."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    trees.expect_registered(example.build(), example.where)
    with FakeTensorMode(allow_non_fake_inputs=True):
        cache = _fake_moved(example.build())
        expect_equal("devices", _devices(cache), ["cuda"], example.where)
        restored = trees.round_trip(cache, example.where)
        expect_equal("devices after a round trip", _devices(restored), ["cuda"], example.where)
        leaves = pytree.tree_leaves(cache)
        expect_same_cache(restored, cache, "lost on fake CUDA", leaves, example.where)
        expect_same_leaves(pytree.tree_leaves(restored), leaves, "other leaves on fake CUDA", example.where)
    # What a registration makes under the mode is fake, and may not be given to a cache outside of it; nor what it made
    # before: no other check has caches with this window.
    with builders.sizes(replace(builders.now(), window=_OWN_WINDOW)):
        with FakeTensorMode(allow_non_fake_inputs=True):
            trees.round_trip(example.build(), example.where)
        expect_whole(example.build(), f"{example.where}, window {_OWN_WINDOW}, after a fake one")


@of
def test_fake_move(registered: object, example: Example) -> None:
    """`tree_map` moves every tensor of a cache to another device."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    trees.expect_registered(example.build(), example.where)
    with FakeTensorMode(allow_non_fake_inputs=True):
        cache = example.build()
        expect_equal("devices", _devices(cache), ["cpu"], example.where)
        expect_equal("devices after the move", _devices(_fake_moved(cache)), ["cuda"], example.where)


@of
def test_meta(registered: object, example: Example) -> None:
    """A cache on the meta device keeps shapes and types through a round trip."""
    trees.expect_registered(example.build(), example.where)
    cache = _moved(example.build(), "meta")
    expect_equal("devices", _devices(cache), ["meta"], example.where)
    trees.expect_no_differences(
        differences(observe(trees.round_trip(cache, example.where)), observe(cache)), "lost on meta", example.where
    )


def _moving(name: str) -> list[Case]:
    plain = {"tensors": "plain", "attributes": "none"}
    return [case for case in spaces.BY_NAME[name].some(40, **plain) if case.layers < 14][:20]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs(making.held(partial(_moving, name))))
        for name in ("many-layers", "types", "windows", "static", "skipped", "anything")
    ],
)
@pytest.mark.parametrize("move", [*MOVES])
def test_moves(registered: object, move: str, name: str) -> None:
    """A cache that `tree_map` moved to another type or device tells the new one wherever it tells any."""
    expect_for_all(_moving(name), lambda case: _expect_moved(case, MOVES[move]))


def _expect_moved(case: Case, move: moves.Move) -> None:
    moves.expect_moved(making.build(case), move)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_moved(registered: object, example: Example) -> None:
    """A cache of each kind, moved to another type and to the device "meta", tells that in every attribute."""
    for move in MOVES.values():
        moves.expect_moved(example.build(), move, example.where)


@of
@needs_cuda()
def test_cuda_round_trip(registered: object, example: Example) -> None:
    """A cache of real CUDA tensors comes back whole."""
    trees.expect_round_trip(example.build(device="cuda"), example.where)


@of
@needs_cuda()
def test_cuda_move(registered: object, example: Example) -> None:
    """A cache that `tree_map` moved from CPU to GPU and back equals the original."""
    cache = example.build()
    trees.expect_registered(cache, example.where)
    there = _moved(cache, "cuda")
    expect_equal("devices after the move", _devices(there), ["cuda"], example.where)
    for got, expected in zip(pytree.tree_leaves(_moved(there, "cpu")), pytree.tree_leaves(cache), strict=True):
        same = torch.equal(got, expected) if isinstance(expected, torch.Tensor) else got == expected
        expect_equal("a leaf that was moved and moved back is equal", same, True, example.where)


@needs_cuda(devices=2)
def test_cuda_two_devices(registered: object) -> None:
    """A cache whose layers are on two devices comes back with each layer where it was."""
    from kvconform.checks.behave import append, states
    from kvconform.checks.needs import lookup

    cache = lookup("transformers.cache_utils:DynamicCache")()
    for layer in range(2):
        append(cache, *states(2, 2, 5, 8, seed=layer, device=torch.device("cuda", layer)), layer, 0)
    trees.expect_round_trip(cache, "DynamicCache on two devices")


@needs_cuda()
def test_cuda_memory(registered: object) -> None:
    """A round trip allocates nothing on the device."""
    cache = examples("dynamic-two-layers")[0].build(device="cuda")
    trees.expect_registered(cache)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trees.round_trip(cache)
    expect_equal("bytes allocated by a round trip", torch.cuda.max_memory_allocated() - before, 0)
