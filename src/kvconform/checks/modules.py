"""Small modules that use a cache as models do, on every release: what export checks export."""

from __future__ import annotations

from typing import Any

import torch

from kvconform.checks.behave import takes_cache_kwargs
from kvconform.checks.needs import lookup


def stored(cache: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The keys and values of each layer, from whichever place this release keeps them in."""
    part = getattr(cache, "self_attention_cache", cache)
    if "layers" in part.__dict__:
        return [(layer.keys, layer.values) for layer in part.layers]
    return list(zip(part.key_cache, part.value_cache, strict=True))


class ReadCache(torch.nn.Module):
    """Takes a cache and only reads it."""

    def forward(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        """Mix `x` of shape `(batch, heads, new, width)` with what is stored, layer after layer."""
        for keys, values in stored(cache):
            x = _read(x, keys, values)
        return x


class MakeCache(torch.nn.Module):
    """Takes tensors and returns a new DynamicCache: a prefill."""

    def __init__(self) -> None:
        super().__init__()
        self.cls = lookup("transformers.cache_utils:DynamicCache")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Write two layers and return `x`, mixed with them, and the cache."""
        cache = self.cls()
        for layer in range(2):
            keys, values = cache.update(x + layer, x * 2, layer)
            x = _read(x, keys, values)
        return x, cache


class UpdateCache(torch.nn.Module):
    """Takes a cache, appends to every layer and reads it: a decode step. Returns the cache too if `returns_cache`."""

    def __init__(self, layers: list[int], *, returns_cache: bool = True, kwargs: bool = False) -> None:
        super().__init__()
        self.layers = layers
        self.returns_cache = returns_cache
        self.kwargs = kwargs

    @classmethod
    def like(cls, cache: Any, *, returns_cache: bool = True) -> UpdateCache:
        """The step for a cache's own layers, with the arguments that its `update` takes."""
        part = getattr(cache, "self_attention_cache", cache)
        written = [index for index, pair in enumerate(stored(cache)) if isinstance(pair[0], torch.Tensor)]
        return cls(written, returns_cache=returns_cache, kwargs=takes_cache_kwargs(part))

    def forward(self, x: torch.Tensor, cache: Any, position: torch.Tensor) -> Any:
        """Append `x` at `position` (one index a new token) to each layer."""
        part = getattr(cache, "self_attention_cache", cache)
        for layer in self.layers:
            if self.kwargs:
                keys, values = part.update(x + layer, x * 2, layer, {"cache_position": position})
            else:
                keys, values = part.update(x + layer, x * 2, layer)
            x = _read(x, keys, values)
        return (x, cache) if self.returns_cache else x


def _read(x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mix every key with its value and with `x`.

    A token more or less, keys for values, and layers in another order are seen in the result. It is not attention,
    which the models of the suite do: `torch.export` takes a matmul apart into many operations, and traces each.
    """
    asked = x.mean(dim=2, keepdim=True)
    return x + (keys * (values + asked)).mean(dim=2, keepdim=True)
