"""The causal cache: full, sliding window, or chunked attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from kvconform.kvcache.base import Cache
from kvconform.kvcache.cells import Cells, Placement
from kvconform.kvcache.config import END, Batch, CacheConfig, Limits
from kvconform.kvcache.errors import NotReady, NotSupported
from kvconform.kvcache.forward import Forward
from kvconform.kvcache.mask import Asked, MaskBuffer
from kvconform.kvcache.storage import Shift, Storage
from kvconform.kvcache.visibility import Visibility


class Causal(Cache):
    """Keys and values stored by position, for several sequences that may share prefixes.

    `put` takes keys (batch, kv_heads, key_dim) and values (batch, kv_heads, value_dim); `get` returns keys (history,
    kv_heads, key_dim), values (history, kv_heads, value_dim) or, permuted, (kv_heads, value_dim, history), and the mask
    (batch, history). The history is the smallest range of cells that holds all sequences of the batch.

    Args:
        shift: re-embeds keys of tokens that change their position; without it `remove` refuses to move any.
        rule: what a query sees; use `causal`, `sliding_window` or `chunked`.
    """

    def __init__(self, shift: Shift | None = None, rule: Visibility | None = None) -> None:
        self.shift = shift
        self.rule = rule or Visibility()
        self.config = CacheConfig()
        self.limits: Limits | None = None
        self._layer = 0
        self._undo: Placement | None = None
        self._forward = Forward.none()

    @classmethod
    def causal(cls, shift: Shift | None = None) -> Causal:
        """A query sees all earlier positions and its own."""
        return cls(shift)

    @classmethod
    def sliding_window(cls, window: int, shift: Shift | None = None) -> Causal:
        """A query at position p sees p - window to p: window + 1 positions. See `window_from_visible`."""
        return cls(shift, Visibility(window=window))

    @classmethod
    def chunked(cls, chunk: int, shift: Shift | None = None) -> Causal:
        """A query sees the earlier positions of its own chunk of `chunk` tokens, and its own."""
        return cls(shift, Visibility(chunk=chunk))

    def init(
        self,
        dtype: torch.dtype,
        max_sequences: int,
        capacity: int,
        max_batch: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Set up an empty cache. See `Cache.init`.

        There are max_sequences * capacity cells. A sliding window shorter than capacity needs, and gets, no more than
        max_sequences * window + max_batch.
        """
        self.limits = Limits(max_sequences, capacity, max_batch)
        self._reset(dtype, torch.device(device))

    def set_config(self, config: CacheConfig) -> None:
        """Choose padding and layout. See `Cache.set_config`."""
        if self.limits is not None and (self._storage.layers or self._cells.live()):
            raise NotSupported("the cache holds data in the old layout: call set_config before the first start_forward")
        self.config = config
        if self.limits is not None:
            self._reset(self._storage.dtype, self._storage.device)

    def start_forward(
        self, positions: Sequence[int], sequences: Sequence[int], reserve: bool = False, *, inputs: Sequence[int] = ()
    ) -> None:
        """Begin a forward pass. See `Cache.start_forward`; `inputs` means nothing here."""
        del inputs
        batch = Batch.of(positions, sequences, self._ready())
        self._bookkeeping_on_cpu()
        if reserve:
            self._start_reserve(batch)
            return
        self._undo = self._cells.place(batch, self._expired(batch), self._storage.move)
        begin, end = self._cells.span(batch)
        span = (
            begin // self.config.cache_padding * self.config.cache_padding,
            _round_up(end, self.config.cache_padding),
        )
        mask = self._masks.build(self._cells, Asked(batch, self.rule), self._undo.start, span, self._mask_rows(batch))
        self._forward = Forward.of(batch, self._undo.start, span, mask.to(self._storage.device), reserve=False)

    def cancel_forward(self) -> None:
        """Undo `start_forward` before the first `put`. See `Cache.cancel_forward`."""
        if self._undo is not None:
            self._cells.undo(self._undo)
        self._end_forward()

    def set_layer(self, layer: int) -> None:
        """Choose the layer that `put` and `get` mean."""
        self._layer = layer

    def put(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store the batch: key (batch, kv_heads, key_dim), value (batch, kv_heads, value_dim).

        Raises:
            NotReady: no forward pass.
            ValueError: the tensors do not fit the batch or the layer.
        """
        forward = self._started()
        for name, tensor in (("key", key), ("value", value)):
            if tensor.dim() != 3 or tensor.shape[0] != forward.locations.shape[0]:  # noqa: PLR2004
                raise ValueError(
                    f"the {name} has shape {tuple(tensor.shape)}, expected ({forward.locations.shape[0]}, kv_heads, "
                    "dim): one row for each token of start_forward"
                )
        layer = self._storage.layer_for(self._layer, key, value)
        self._undo = None
        if not forward.reserve:
            self._storage.write(layer, forward.locations, key, value)

    def get(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys and values of the history, and the mask: shapes in the description of the class.

        They are views, good until the next `start_forward`; inside a graph, keys and values are copies.

        Raises:
            NotReady: no forward pass, or nothing was ever put into this layer.
        """
        forward, layer = self._started(), self._storage.get(self._layer)
        if forward.traced:
            return *self._storage.select(layer, forward.history), forward.mask
        return *self._storage.view(layer, *forward.cells()), forward.mask

    def set_causal(self, except_: Sequence[int] = ()) -> None:
        """Let these queries, indices into the batch, see later positions too, in what `get` returns from now on.

        Each call replaces the one before; the next `start_forward` starts with no exceptions.

        Raises:
            NotReady: no forward pass.
            ValueError: an index outside the batch.
        """
        forward = self._started()
        self._bookkeeping_on_cpu()
        batch = forward.batch()
        if not all(0 <= index < len(batch) for index in except_):
            raise ValueError(f"except_ is {list(except_)}, expected indices 0 to {len(batch) - 1} of the batch")
        if forward.reserve:
            return
        span, rows = forward.cells(), self._mask_rows(batch)
        # Built anew, not edited: the mask handed out for an earlier layer stays what it was.
        asked = Asked(batch, self.rule, frozenset(except_))
        mask = MaskBuffer(self.config.mask_dtype, rows, span[1]).build(
            self._cells, asked, int(forward.locations[0]), span, rows
        )
        forward.mask = mask.to(self._storage.device)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Make `target` hold positions [0, length) of `source`, and nothing else. See `Cache.copy_prefix`.

        The two share cells: no data is copied. A sliding window copies what of the prefix it still holds.
        """
        limits = self._ready()
        limits.check_sequence(source)
        limits.check_sequence(target)
        if source == target:
            raise ValueError(
                f"source and target are both sequence {source}: to shorten it, call remove({source}, {length})"
            )
        self._bookkeeping_on_cpu()
        self._end_forward()
        self._cells.release(target, self._cells.held(target))
        self._cells.share(target, self._cells.held(source)[self._cells.positions_of(source) < length])

    def can_resume(self, sequence: int, position: int) -> bool:
        """Whether the next token of `sequence` can be at `position`. See `Cache.can_resume`."""
        self._ready().check_sequence(sequence)
        self._bookkeeping_on_cpu()
        first = self.rule.first(position)
        held = self._cells.positions_of(sequence)
        needed = held[(held >= first) & (held < position)]
        return len(torch.unique(needed)) == position - first

    def check_remove(self, sequence: int, begin: int, end: int = END) -> None:
        """Raise what `remove` would raise. See `Cache.remove`."""
        self._ready().check_sequence(sequence)
        if not 0 <= begin <= end:
            raise ValueError(f"positions [{begin}, {end}) are no range: expected 0 <= begin <= end")
        self._bookkeeping_on_cpu()
        later = self._later(sequence, begin, end)
        if not len(later):
            return
        if int(self._cells.owners[later].max()) > 1:
            raise NotSupported(
                f"{len(later)} tokens of sequence {sequence} from position {end} on would move, and other sequences "
                f"share some: call remove({sequence}, 0) and compute it anew"
            )
        if self.shift is None:
            raise NotSupported(
                f"{len(later)} tokens of sequence {sequence} from position {end} on would move, and there is no shift "
                f"function to re-embed their keys: pass shift= to the constructor, or call remove({sequence}, {begin})"
            )

    def remove(self, sequence: int, begin: int, end: int = END) -> None:
        """Take positions [begin, end) out; later ones move down. See `Cache.remove`.

        A removal from the middle of a sliding window can leave a window that is not complete: ask `can_resume`.
        """
        self.check_remove(sequence, begin, end)
        later = self._later(sequence, begin, end)
        if len(later) and self.shift is not None:
            self._storage.rewrite(later, self._storage.shifted(later, begin - end, self.shift))
            moved = begin - end
        else:
            moved = 0
        self._end_forward()
        positions = self._cells.positions_of(sequence)
        gone = self._cells.held(sequence)[(positions >= begin) & (positions < end)]
        self._cells.release(sequence, gone)
        self._cells.shift(sequence, later, moved)

    def close(self) -> None:
        """Free everything. See `Cache.close`."""
        self.limits, self._undo, self._forward = None, None, Forward.none()
        for name in ("_cells", "_storage", "_masks"):
            self.__dict__.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: the mask alone, not the buffer that it is a view of."""
        forward = replace(self._forward, mask=self._forward.mask.clone())
        state = {**self.__dict__, "_forward": forward, "_undo": None}
        return state if self.limits is None else {**state, "_masks": self._new_masks(len(self._cells))}

    def to(self, device: torch.device | str) -> Causal:
        """Move keys, values and the current forward pass to `device`, in place."""
        self._ready()
        self._bookkeeping_on_cpu()
        self._storage.to(torch.device(device))
        self._forward.to(self._storage.device)
        return self

    # -- inside --------------------------------------------------------------------------------------------------------

    def _reset(self, dtype: torch.dtype, device: torch.device) -> None:
        limits = self._ready()
        size = limits.max_sequences * limits.capacity
        if self.rule.window is not None and self.rule.window < limits.capacity:
            size = limits.max_sequences * self.rule.window + limits.max_batch
        size = _round_up(size, self.config.cache_padding)
        self._cells = Cells.empty(size, limits.max_sequences)
        self._storage = Storage(dtype, size, device, self.config.permuted_values)
        self._masks = self._new_masks(size)
        self._end_forward()

    def _ready(self) -> Limits:
        if self.limits is None:
            raise NotReady("the cache has no storage: call init(dtype, max_sequences, capacity, max_batch) first")
        return self.limits

    def _started(self) -> Forward:
        self._ready()
        if not self._forward.locations.shape[0]:
            raise NotReady("there is no forward pass: call start_forward first (remove and copy_prefix end a pass)")
        return self._forward

    def _end_forward(self) -> None:
        self._forward, self._undo = Forward.none(self._storage.device), None

    def _start_reserve(self, batch: Batch) -> None:
        cells = len(self._cells)
        mask = self._masks.blank(self._mask_rows(batch), 0, cells).to(self._storage.device)
        self._forward, self._undo = Forward.of(batch, 0, (0, cells), mask, reserve=True), None

    def _new_masks(self, cells: int) -> MaskBuffer:
        rows = _round_up(self._ready().max_batch, self.config.mask_batch_padding)
        return MaskBuffer(self.config.mask_dtype, rows, cells)

    def _mask_rows(self, batch: Batch) -> int:
        return _round_up(len(batch), self.config.mask_batch_padding)

    def _expired(self, batch: Batch) -> dict[int, torch.Tensor]:
        """Cells, by sequence, that no query of this batch or a later one can see."""
        if self.rule.window is None:
            return {}
        lowest, expired = batch.lowest(), {}
        for sequence in range(self._ready().max_sequences):
            held = self._cells.held(sequence)
            if not len(held):
                continue
            positions = self._cells.positions[held]
            next_position = lowest[sequence] if sequence in lowest else int(positions.max()) + 1
            cells = held[positions < next_position - self.rule.window]
            if len(cells):
                expired[sequence] = cells
        return expired

    def _later(self, sequence: int, begin: int, end: int) -> torch.Tensor:
        """Cells that move when [begin, end) goes: none when the range is empty."""
        return self._cells.held(sequence)[self._cells.positions_of(sequence) >= (end if end > begin else END)]

    def _bookkeeping_on_cpu(self) -> None:
        """Bring the bookkeeping back: a cache rebuilt from moved leaves has it where they are."""
        if self._cells.positions.device.type != "cpu":
            self._cells = Cells(self._cells.positions.cpu(), self._cells.members.cpu())


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
