"""A repair: SlidingWindowCache of transformers 4.44 and 4.45 can be made.

Its constructor begins by calling that of its base, StaticCache, without the arguments that it needs, and raises. It
goes on to call it rightly, with a length of at most the window; here it does that alone.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch

from kvconform import probes
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable, not_needed

__all__ = ["PATCH"]

_SIZES = {"hidden_size": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1}


def _class() -> Any:
    """The class, where it has a constructor of its own."""
    cls = probes.cache_class("SlidingWindowCache")
    return cls if cls is not None and "__init__" in vars(cls) and not probes.has_layers() else None


def _probe() -> Answer:
    cls = _class()
    if cls is None:
        return not_applicable("this release has no SlidingWindowCache that fills lists")
    config = importlib.import_module("transformers").PretrainedConfig(sliding_window=1, **_SIZES)
    try:
        cls(config=config, max_batch_size=1, max_cache_len=1, device=torch.device("cpu"), dtype=torch.float32)
    except TypeError as error:
        if "StaticCache.__init__() missing" in str(error):
            return needed("a SlidingWindowCache of this release cannot be made")
    return not_needed("a SlidingWindowCache of this release is made as it should be")


def _without_the_first_call(native: Callable[..., None]) -> Callable[..., None]:
    base, signature = _class().__mro__[1], inspect.signature(native)

    @functools.wraps(native)
    def construct(self: Any, *args: Any, **named: Any) -> None:
        given = signature.bind(self, *args, **named).arguments
        given.pop("self")
        window = getattr(given["config"], "sliding_window", None)
        if window is None:
            raise ValueError(
                "Setting `cache_implementation` to 'sliding_window' requires a config with a `sliding_window` that is "
                "not None."
            )
        base.__init__(self, **{**given, "max_cache_len": min(window, given["max_cache_len"])})

    return construct


PATCH = Patch(
    name="sliding-window-constructor",
    replaces="the constructor of SlidingWindowCache (4.44 and 4.45)",
    why="it calls that of StaticCache without arguments, and raises",
    page="docs/known-failures/sliding-window-constructor.md",
    probe=_probe,
    replacements=lambda: (Replacement(_class(), "__init__", _without_the_first_call),),
    repairs=True,
)
