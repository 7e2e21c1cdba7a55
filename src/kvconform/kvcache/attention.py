"""Attention over what a cache returns."""

from __future__ import annotations

import torch


def attend(  # noqa: PLR0913  (the arguments of attention)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    scale: float | None = None,
    permuted_values: bool = False,
) -> torch.Tensor:
    """Scaled dot-product attention, written out: the yardstick, not the fastest way.

    Args:
        query: (batch, heads, key_dim).
        key: (history, kv_heads, key_dim); heads is a multiple of kv_heads; consecutive heads share one.
        value: (history, kv_heads, value_dim), or (kv_heads, value_dim, history) if permuted.
        mask: added to the scores, (batch or more, history); None if all is visible.
        scale: of the scores; key_dim ** -0.5 if None.
        permuted_values: the layout of `value`.

    Returns:
        (batch, heads, value_dim), in the dtype of `query`.
    """
    batch, heads, dim = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads, dim).to(key.dtype)
    scores = torch.einsum("bgrd,ngd->bgrn", grouped, key) * (dim**-0.5 if scale is None else scale)
    if mask is not None:
        scores = scores + mask[:batch, None, None, :]
    # The mask's dtype may be lower than the keys': the sum above is in the higher of the two.
    weights = scores.softmax(-1).to(value.dtype)
    out = torch.einsum("bgrn,gdn->bgrd" if permuted_values else "bgrn,ngd->bgrd", weights, value)
    return out.reshape(batch, heads, out.shape[-1]).to(query.dtype)
