"""What a round trip leaves as it was beside the cache: the state of the process, which whoever comes next relies on."""

from __future__ import annotations

import contextlib
import copyreg
import gc
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.overrides import TorchFunctionMode

from kvconform.checks import making
from kvconform.checks.caches import Example
from kvconform.checks.cases import Case
from kvconform.checks.errors import expect
from kvconform.checks.trees import expect_registered
from kvconform.checks.whole import expect_same_cache


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


@contextlib.contextmanager
def expect_nothing_else_changed(where: str) -> Iterator[None]:
    """Prove that a block leaves the state of the process as it was.

    The levels of logging are unusual before it: what an earlier entering left is no change otherwise.
    """
    __tracebackhide__ = True
    levels = {logger: logger.level for logger in _loggers().values()}
    for logger in levels:
        logger.setLevel(_UNUSUAL)
    try:
        before = _process()
        yield
        for what, state in _process().items():
            expect(state == before[what], f"{what} changed", where)
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


_UNUSUAL = logging.ERROR - 1


class _Watching(TorchFunctionMode):
    """A mode that changes nothing, as tracers and profilers enter."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "no-grad": torch.no_grad,
    "inference-mode": torch.inference_mode,
    "device-meta": lambda: torch.device("meta"),
    "double": _double,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "functions-watched": _Watching,
}
"""What may be in force where a cache is flattened or rebuilt, by name."""


def expect_whole_under(mode: str, case: Case) -> None:
    """Prove that a cache comes back as it was, whatever mode, default type or default device is in force.

    A registration makes some tensors anew: a window or a counter that is no leaf. They are what they were too.
    """
    __tracebackhide__ = True
    cache = making.build(case)
    expect_registered(cache, str(case))
    with MODES[mode]():
        leaves, spec = pytree.tree_flatten(cache)
        restored = pytree.tree_unflatten(leaves, spec)
    expect_same_cache(restored, cache, f"lost in a round trip under {mode}", leaves, str(case))


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
        "the environment": dict(os.environ),
        "the paths of modules": [*sys.path],
        "the current folder": Path.cwd(),
        "how classes are pickled": dict(copyreg.dispatch_table),
        "the hooks of exceptions": (sys.excepthook, threading.excepthook, sys.displayhook),
        "what collects garbage": (gc.isenabled(), gc.get_threshold(), [*gc.callbacks]),
        "the levels of logging": _levels(),
    }


def _levels() -> dict[str, tuple[int, bool, int]]:
    """Level, whether it is disabled, and the number of handlers of the loggers of torch and transformers."""
    return {name: (one.level, one.disabled, len(one.handlers)) for name, one in _loggers().items()}


def _loggers() -> dict[str, logging.Logger]:
    names = ("root", "torch", "torch.export", "torch._dynamo", "transformers")
    return {name: logging.getLogger(None if name == "root" else name) for name in names}
