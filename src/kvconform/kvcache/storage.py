"""Keys and values of every layer, one row a cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from kvconform.kvcache.errors import NotReady

Shift = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""Re-embeds keys whose positions change: `shift(layer, keys, offsets) -> keys`.

Keys are (n, kv_heads, key_dim), offsets (n,) int64, negative when tokens move down.
"""


@dataclass
class Layer:
    """Keys (cells, kv_heads, key_dim); values (cells, kv_heads, value_dim), permuted (kv_heads, value_dim, cells)."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass
class Storage:
    """Layers by index. Memory of a layer is allocated when its shapes are first seen.

    Inside a graph (torch.export, torch.compile) all of it is indexed by tensors: no cell number is frozen.
    """

    dtype: torch.dtype
    cells: int
    device: torch.device
    permuted: bool = False
    layers: dict[int, Layer] = field(default_factory=dict)

    def layer_for(self, index: int, key: torch.Tensor, value: torch.Tensor) -> Layer:
        """The layer, allocated if need be.

        Raises:
            ValueError: the shapes are not those of the layer.
        """
        if index not in self.layers:
            # Zeros, not whatever memory holds: a masked NaN would still poison the product with the values.
            shapes = ((self.cells, *key.shape[1:]), self._value_shape(value))
            self.layers[index] = Layer(*(torch.zeros(s, dtype=self.dtype, device=self.device) for s in shapes))
        layer = self.layers[index]
        if layer.keys.shape[1:] != key.shape[1:] or layer.values.shape != self._value_shape(value):
            raise ValueError(
                f"layer {index} holds keys {tuple(layer.keys.shape)} and values {tuple(layer.values.shape)}, got "
                f"{tuple(key.shape)} and {tuple(value.shape)}: the shapes of a layer are those of its first put"
            )
        return layer

    def get(self, index: int) -> Layer:
        """The layer.

        Raises:
            NotReady: nothing was put into it yet.
        """
        if index not in self.layers:
            raise NotReady(f"layer {index} holds nothing: call put before get; layers so far: {sorted(self.layers)}")
        return self.layers[index]

    def write(self, layer: Layer, where: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store a batch in the cells `where`."""
        layer.keys.index_copy_(0, where, key.to(self.dtype))
        value = value.to(self.dtype)
        layer.values.index_copy_(self.cell_dim, where, value.permute(1, 2, 0) if self.permuted else value)

    def view(self, layer: Layer, begin: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cells [begin, end), without a copy."""
        return layer.keys[begin:end], layer.values.narrow(self.cell_dim, begin, end - begin)

    def select(self, layer: Layer, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The cells `where`, copied: what a graph can do for any history."""
        return layer.keys.index_select(0, where), layer.values.index_select(self.cell_dim, where)

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy cells to cells, in all layers."""
        source, target = source.to(self.device), target.to(self.device)
        for layer in self.layers.values():
            layer.keys[target] = layer.keys[source]
            layer.values.index_copy_(self.cell_dim, target, layer.values.index_select(self.cell_dim, source))

    def shifted(self, where: torch.Tensor, offset: int, shift: Shift) -> dict[int, torch.Tensor]:
        """Re-embedded keys of the cells `where`, by layer; nothing is stored."""
        where = where.to(self.device)
        offsets = torch.full((len(where),), offset, device=self.device)
        return {index: shift(index, layer.keys[where], offsets) for index, layer in self.layers.items()}

    def rewrite(self, where: torch.Tensor, keys: dict[int, torch.Tensor]) -> None:
        """Store keys that `shifted` made."""
        where = where.to(self.device)
        for index, key in keys.items():
            self.layers[index].keys[where] = key.to(self.dtype)

    def to(self, device: torch.device) -> None:
        """Move all layers."""
        self.device = device
        for layer in self.layers.values():
            layer.keys, layer.values = layer.keys.to(device), layer.values.to(device)

    @property
    def cell_dim(self) -> int:
        """Dimension of values that counts cells."""
        return 2 if self.permuted else 0

    def _value_shape(self, value: torch.Tensor) -> tuple[int, ...]:
        tail = tuple(value.shape[1:])
        return (*tail, self.cells) if self.permuted else (self.cells, *tail)
