"""Caches that are a list of layers: transformers 4.54 and later.

| module | holds |
|---|---|
| `layer_kinds` | what is known of each layer class, and its letters in a context |
| `cache_kinds` | what is known of each cache class |
| `writing` | a cache to leaves and context |
| `reading` | leaves and context to a cache, following a plan |
| `plans` | a context to a plan |
| `fast` | both directions for layers that are nothing but keys and values |
"""
