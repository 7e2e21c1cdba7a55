"""The encoder cache: keys and values without positions, for one sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kvconform.kvcache.base import Cache
from kvconform.kvcache.config import END, Batch, CacheConfig, Limits
from kvconform.kvcache.errors import NotReady, NotSupported
from kvconform.kvcache.storage import Layer


class EncoderCache(Cache):
    """What an encoder made, for cross attention: stored once, returned as it was, visible to every query.

    Keys and values may have any shape, and are returned in it; with permuted values, values (n, kv_heads, value_dim)
    come back as (kv_heads, value_dim, n). The mask is None. One sequence only.

    What is stored belongs to a position: that of the last of the `inputs` of the forward pass that stored it, or,
    without `inputs`, the lowest position of that pass, as befits a model that encodes before it decodes. `remove` of a
    range with that position in it makes `encoder_cached` false: then the encoder has to run again.
    """

    encoder_cached: bool

    shares_sequences = False

    def __init__(self) -> None:
        self.config = CacheConfig()
        self.limits: Limits | None = None
        self.layers: dict[int, Layer] = {}
        self._layer = 0
        self._forget()

    def init(
        self,
        dtype: torch.dtype,
        max_sequences: int,
        capacity: int,
        max_batch: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Set up an empty cache. See `Cache.init`.

        Raises:
            NotSupported: more than one sequence.
        """
        if max_sequences != 1:
            raise NotSupported(
                f"an encoder cache holds one sequence, init asked for {max_sequences}: pass max_sequences=1"
            )
        self.limits = Limits(max_sequences, capacity, max_batch)
        self.dtype, self.device = dtype, torch.device(device)
        self.layers = {}
        self._forget()

    def set_config(self, config: CacheConfig) -> None:
        """Choose the layout of values; padding is refused, since nothing here has cells or a mask."""
        if self.layers:
            raise NotSupported("the cache holds data in the old layout: call set_config before the first put")
        if config.cache_padding != 1:
            raise NotSupported(
                f"cache_padding is {config.cache_padding}: an encoder cache returns what was stored, expected 1"
            )
        self.config = config

    def start_forward(
        self, positions: Sequence[int], sequences: Sequence[int], reserve: bool = False, *, inputs: Sequence[int] = ()
    ) -> None:
        """Begin a forward pass. See `Cache.start_forward`.

        Raises:
            ValueError: the batch makes no sense, or `inputs` has an index outside it.
        """
        batch = Batch.of(positions, sequences, self._ready())
        if not all(0 <= index < len(batch) for index in inputs):
            raise ValueError(f"inputs is {list(inputs)}, expected indices 0 to {len(batch) - 1} of the batch")
        self._position = torch.tensor(batch.positions[inputs[-1]] if inputs else min(batch.positions))
        self._reserve, self._started = reserve, True

    def cancel_forward(self) -> None:
        """Undo `start_forward`; nothing was stored by it."""
        self._started = False

    def set_layer(self, layer: int) -> None:
        """Choose the layer that `put` and `get` mean."""
        self._layer = layer

    def put(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store keys and values of any shape, in place of what this layer held.

        Raises:
            NotReady: no forward pass.
        """
        self._ready()
        if not self._started:
            raise NotReady("there is no forward pass: call start_forward first")
        value = value.permute(1, 2, 0) if self.config.permuted_values else value
        if self._reserve and self._layer in self.layers:
            return
        if self._reserve:
            self.layers[self._layer] = Layer(
                *(torch.zeros_like(t, dtype=self.dtype, device=self.device) for t in (key, value))
            )
            return
        # Copies: the caller's tensors stay the caller's.
        self.layers[self._layer] = Layer(*(t.to(self.device, self.dtype, copy=True).contiguous() for t in (key, value)))
        self.encoder_cached, self.encoder_position = True, self._position

    def get(self) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Keys and values of this layer, as stored, and no mask.

        Raises:
            NotReady: nothing was put into this layer.
        """
        self._ready()
        if self._layer not in self.layers:
            raise NotReady(
                f"layer {self._layer} holds nothing: call put before get; layers so far: {sorted(self.layers)}"
            )
        layer = self.layers[self._layer]
        return layer.keys, layer.values, None

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Refuse: there is one sequence."""
        raise NotSupported(
            f"an encoder cache holds one sequence: positions [0, {length}) of {source} cannot be copied to {target}; "
            "compute the other sequence with a cache of its own"
        )

    def can_resume(self, sequence: int, position: int) -> bool:
        """True: no position is needed to attend to what an encoder made."""
        self._ready().check_sequence(sequence)
        return position >= 0

    def check_remove(self, sequence: int, begin: int, end: int = END) -> None:
        """Refuse a sequence or a range that cannot be."""
        self._ready().check_sequence(sequence)
        if not 0 <= begin <= end:
            raise ValueError(f"positions [{begin}, {end}) are no range: expected 0 <= begin <= end")

    def remove(self, sequence: int, begin: int, end: int = END) -> None:
        """Drop what is stored if its position is in [begin, end); move its position if it lies behind."""
        self.check_remove(sequence, begin, end)
        position = int(self.encoder_position)
        if not self.encoder_cached or position < begin:
            return
        if position < end:
            self.encoder_cached = False
        else:
            self.encoder_position = torch.tensor(position + begin - end)

    def close(self) -> None:
        """Free everything. See `Cache.close`."""
        self.limits = None
        self.layers = {}
        self._forget()

    def to(self, device: torch.device | str) -> EncoderCache:
        """Move keys and values to `device`, in place."""
        self.device = torch.device(device)
        for layer in self.layers.values():
            layer.keys, layer.values = layer.keys.to(self.device), layer.values.to(self.device)
        return self

    def _ready(self) -> Limits:
        if self.limits is None:
            raise NotReady("the cache has no storage: call init(dtype, 1, capacity, max_batch) first")
        return self.limits

    def _forget(self) -> None:
        self.encoder_cached, self._reserve, self._started = False, False, False
        # Tensors, though they hold one number: as leaves, numbers would be frozen into an exported program.
        self.encoder_position, self._position = torch.tensor(0), torch.tensor(0)
