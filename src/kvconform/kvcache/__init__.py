"""The reference KV cache: it knows positions, sequences and masks.

Caches of transformers hold tensors and a length. These hold, for every cell, a position and the sequences that share
it, so that they can tell exactly what each query may see. That makes them the yardstick for the others: see
docs/kvcache.md.
"""

from kvconform.kvcache.attention import attend
from kvconform.kvcache.base import Cache
from kvconform.kvcache.causal import Causal
from kvconform.kvcache.config import END, CacheConfig
from kvconform.kvcache.encoder import EncoderCache
from kvconform.kvcache.errors import KVCacheError, KVCacheFull, NotReady, NotSupported
from kvconform.kvcache.tree import (
    dynamic_shapes,
    flatten_causal,
    flatten_with_keys_causal,
    load,
    register,
    save,
    unflatten_causal,
)
from kvconform.kvcache.visibility import window_from_visible
from kvconform.kvcache.wrapper import WrapperCache

__all__ = [
    "END",
    "Cache",
    "CacheConfig",
    "Causal",
    "EncoderCache",
    "KVCacheError",
    "KVCacheFull",
    "NotReady",
    "NotSupported",
    "WrapperCache",
    "attend",
    "dynamic_shapes",
    "flatten_causal",
    "flatten_with_keys_causal",
    "load",
    "register",
    "save",
    "unflatten_causal",
    "window_from_visible",
]
