"""The names that users of onnxruntime expect: `past_key_values.0.key` in, `present.0.key` out.

They are read from the key paths of a program's inputs and outputs. Layers stand apart from what they hold, so that the
order of a cache's leaves does not matter to who goes by name; an encoder-decoder has `.decoder.` and `.encoder.`.
"""

from __future__ import annotations

import re
from typing import Any

from torch.utils import _pytree as py_pytree

__all__ = ["input_names", "output_names"]

# `key_W8_0`: what it is, the kind of its layer, which layer.
_LEAF = re.compile(r"(?P<what>[a-z]+(?:_[a-z]+)*)_(?:[A-Z]\w*_)?(?P<layer>\d+)")
_PARTS = {"self_attention_cache": "decoder", "cross_attention_cache": "encoder"}


def input_names(exported: Any) -> list[str]:
    """The names of a program's inputs, in the order of its leaves.

    Args:
        exported: a program of `ExportedDecoder`, which has its example inputs.
    """
    paths, _ = py_pytree.tree_flatten_with_path(exported.example_inputs)
    # The first key says positional or by keyword.
    return [_dotted([_text(key) for key in path[1:]]) for path, _ in paths]


def output_names(exported: Any, kind: str) -> list[str]:
    """The names of a program's outputs: `logits` and the cache's, or `last_hidden_state` of an encoder.

    Args:
        exported: the same program.
        kind: "encoder", "prefill" or "decode".
    """
    if kind == "encoder":
        return ["last_hidden_state"]
    (output,) = (node for node in exported.graph.nodes if node.op == "output")
    values = [getattr(node, "meta", {}).get("val", 0) for node in output.args[0]]
    # A program that changes an input gives it first.
    values = values[len(values) - exported.call_spec.out_spec.num_leaves :]
    paths, _ = py_pytree.tree_flatten_with_path(py_pytree.tree_unflatten(values, exported.call_spec.out_spec))
    return ["logits", *(_dotted(["present", *(_text(key) for key in path[1:])]) for path, _ in paths[1:])]


def _text(key: Any) -> str:
    return str(next(getattr(key, name) for name in ("key", "name", "idx") if hasattr(key, name)))


def _dotted(path: list[str]) -> str:
    if len(path) == 1:
        return path[0]
    found = _LEAF.fullmatch(path[-1])
    parts = [_PARTS.get(part, part) for part in path[1:-1]]
    last = [found["layer"], *parts, found["what"]] if found else [*parts, path[-1]]
    return ".".join([path[0], *last])
