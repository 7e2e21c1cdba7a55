"""What a round trip leaves as it was beside the cache: the state of the process, which whoever comes next relies on."""

from __future__ import annotations

import random
import sys
import warnings
from typing import Any

import torch
import torch.utils._pytree as pytree

from kvconform.checks.caches import Example
from kvconform.checks.errors import expect
from kvconform.checks.trees import expect_registered


def expect_process_unchanged(example: Example) -> None:
    """Prove that a round trip changes no state of the process, with gradients on and off."""
    __tracebackhide__ = True
    cache = example.build()
    expect_registered(cache, example.where)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            before = _process()
            leaves, spec = pytree.tree_flatten(cache)
            flattened = _process()
            pytree.tree_unflatten(leaves, spec)
            for what, state in _process().items():
                expect(flattened[what] == before[what], f"flattening changed {what}", example.where)
                expect(state == before[what], f"unflattening changed {what}", example.where)


def _process() -> dict[str, Any]:
    return {
        "torch's random generator": bytes(torch.random.get_rng_state().tolist()),
        "Python's random generator": random.getstate(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "whether inference mode is on": torch.is_inference_mode_enabled(),
        "torch's default type": torch.get_default_dtype(),
        "the number of torch's threads": torch.get_num_threads(),
        "whether algorithms are deterministic": torch.are_deterministic_algorithms_enabled(),
        "the filters of warnings": [*warnings.filters],
        "the limit of recursion": sys.getrecursionlimit(),
    }
