"""Export recipes with one signature on every release.

`convert_and_export_with_cache` is the name and the signature under which transformers documents ExecuTorch export. Its
own moved, demanded other settings and fails on some pairs of releases; this one hands over to it where it works, and
exports `StaticCacheModule` where it does not.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform import probes
from kvconform.errors import CacheStructureError
from kvconform.register import register_flattening_functions
from kvconform.shapes import dynamic_shapes_for

__all__ = ["DynamicCacheModule", "StaticCacheModule", "convert_and_export_with_cache", "export_with_dynamic_cache"]

_LOG = logging.getLogger(__name__)


class StaticCacheModule(torch.nn.Module):
    """A decoder with a static cache inside, for runtimes without dynamic shapes.

    `forward(input_ids, cache_position) -> logits`, the signature of ExecuTorch's runner: `input_ids` of shape
    (batch, tokens), `cache_position` of shape (tokens,), the logits of shape (batch, tokens, vocabulary). The cache's
    tensors are buffers, written in place; a position below the last one rewinds.

    Args:
        model: a decoder of transformers.
        batch_size: rows; from the model's generation config if not given, else 1.
        max_cache_len: tokens that fit; from the generation config if not given, else the model's longest sequence.
    """

    def __init__(self, model: Any, batch_size: int | None = None, max_cache_len: int | None = None) -> None:
        super().__init__()
        config = _text_config(model)
        self.model = model
        self.batch_size = batch_size or _setting(model, "batch_size") or 1
        self.max_cache_len = max_cache_len or _setting(model, "max_cache_len") or config.max_position_embeddings
        self.static_cache = _static_cache(model, self.batch_size, self.max_cache_len)
        self.window = _windows(config)
        # Asked here, not in forward: torch.export may trace what stands there.
        self.masks_by_kind = probes.takes_masks_by_kind(type(model))
        self.takes_positions = "cache_position" in probes.parameters_of(model.forward)
        for name, tensor in _tensors(self.static_cache):
            if name not in self._buffers:
                self.register_buffer(name, tensor, persistent=False)

    def forward(self, input_ids: torch.Tensor, cache_position: torch.Tensor) -> torch.Tensor:
        """Logits of these tokens, which are written at these positions."""
        self._point_at_buffers()
        for layer in getattr(self.static_cache, "layers", ()):
            if isinstance(getattr(layer, "cumulative_length", None), torch.Tensor):
                layer.cumulative_length.copy_(cache_position[0])
        arguments = {
            "input_ids": input_ids,
            "attention_mask": self._mask(cache_position),
            "position_ids": cache_position.unsqueeze(0),
            "past_key_values": self.static_cache,
            "use_cache": True,
        }
        if self.takes_positions:
            arguments["cache_position"] = cache_position
        logits: torch.Tensor = self.model(**arguments).logits
        return logits

    def _point_at_buffers(self) -> None:
        """Have the cache hold what the module holds: while it traces, torch.export puts other tensors there."""
        if not hasattr(self.static_cache, "layers"):
            for kind in ("key", "value"):
                tensors = getattr(self.static_cache, f"{kind}_cache")
                tensors[:] = [getattr(self, f"{kind}_cache_{i}") for i in range(len(tensors))]
            return
        for index, layer in enumerate(self.static_cache.layers):
            layer.keys = getattr(self, f"key_cache_{index}")
            layer.values = getattr(self, f"value_cache_{index}")
            if f"cumulative_length_{index}" in self._buffers:
                layer.cumulative_length = getattr(self, f"cumulative_length_{index}")

    def _mask(self, positions: torch.Tensor) -> Any:
        """Additive mask of shape (1, 1, tokens, max_cache_len), or one a kind of layer.

        A mask made by transformers goes through vmap from 4.53 on, which torch.export up to 2.5 refuses and later ones
        take only sometimes; a mask of four dimensions is used as it is on every release.
        """
        keys = torch.arange(self.max_cache_len, device=positions.device)
        causal = keys[None, :] <= positions[:, None]
        full = self._additive(causal)
        if self.window is None:
            return full
        sliding = self._additive(causal & (keys[None, :] > positions[:, None] - self.window))
        if self.masks_by_kind:
            return {"full_attention": full, "sliding_attention": sliding}
        return sliding

    def _additive(self, visible: torch.Tensor) -> torch.Tensor:
        dtype = self.model.dtype
        zero = torch.zeros((), dtype=dtype, device=visible.device)
        return torch.where(visible, zero, torch.finfo(dtype).min)[None, None]


class DynamicCacheModule(torch.nn.Module):
    """A decoder that takes and returns its cache: `forward(input_ids, past_key_values) -> (logits, cache)`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, past_key_values: Any) -> tuple[torch.Tensor, Any]:
        """Logits of shape (batch, tokens, vocabulary), and the cache with these tokens."""
        output = self.model(input_ids=input_ids, past_key_values=past_key_values, use_cache=True)
        return output.logits, output.past_key_values


def convert_and_export_with_cache(
    model: Any,
    example_input_ids: torch.Tensor | None = None,
    example_cache_position: torch.Tensor | None = None,
    dynamic_shapes: dict[str, Any] | None = None,
    strict: bool | None = None,
) -> torch.export.ExportedProgram:
    """Export a decoder with a static cache inside.

    Args:
        model: a decoder of transformers.
        example_input_ids: shape (batch, tokens); one token if not given.
        example_cache_position: shape (tokens,); position 0 if not given.
        dynamic_shapes: for `input_ids` and `cache_position`.
        strict: whether torch.export goes through dynamo. None: whichever works.

    Returns:
        The program: keyword arguments `input_ids` and `cache_position`, result the logits.

    Raises:
        CacheStructureError: no way of exporting worked; the message has the reason of each.
    """
    ids = torch.ones((1, 1), dtype=torch.long) if example_input_ids is None else example_input_ids
    positions = torch.zeros(1, dtype=torch.long) if example_cache_position is None else example_cache_position
    reasons = []
    if not _windows(_text_config(model)):
        # Beyond a window transformers' own recipe is documented not to work; ours masks instead.
        try:
            return _transformers_recipe(model, ids, positions, dynamic_shapes, strict)
        except Exception as error:  # noqa: BLE001 (whatever it raises, the other way is tried and the message names both)
            reasons.append(f"transformers' recipe: {type(error).__name__}: {_first_line(error)}")
            _LOG.info("transformers' own recipe does not work here, using kvconform's: %s", reasons[-1])
    module = StaticCacheModule(model, batch_size=_setting(model, "batch_size") or ids.shape[0])
    return _export(module, {"input_ids": ids, "cache_position": positions}, dynamic_shapes, strict, reasons)


def export_with_dynamic_cache(
    model: Any,
    example_input_ids: torch.Tensor | None = None,
    example_cache: Any = None,
    dynamic_shapes: dict[str, Any] | None = None,
    strict: bool | None = None,
) -> torch.export.ExportedProgram:
    """Export one decode step of a decoder with its cache as input and output.

    Run the program inside `register_flattening_functions()`, and feed the cache it returns back to it. Past a sliding
    window is another structure than below it: give an `example_cache` of the one that is wanted.

    Args:
        model: a decoder of transformers.
        example_input_ids: shape (batch, tokens); two rows of one token if not given.
        example_cache: the cache to begin with; one of four tokens, made by the model, if not given.
        dynamic_shapes: for `input_ids` and `past_key_values`; batch and length dynamic if not given.
        strict: whether torch.export goes through dynamo. None: whichever works.

    Returns:
        The program: `input_ids` and `past_key_values` in, logits and cache out.
    """
    ids = torch.ones((2, 1), dtype=torch.long) if example_input_ids is None else example_input_ids
    with register_flattening_functions(), torch.no_grad():
        cache = _prefilled(model, ids.shape[0]) if example_cache is None else example_cache
        # Slices of longer tensors would make guards on their strides.
        leaves, spec = py_pytree.tree_flatten(cache)
        cache = py_pytree.tree_unflatten([v.contiguous() if isinstance(v, torch.Tensor) else v for v in leaves], spec)
        if dynamic_shapes is None:
            dim = probes.automatic_dimension()
            dynamic_shapes = {
                "input_ids": {0: dim},
                "past_key_values": dynamic_shapes_for(cache, batch=dim, length=dim),
            }
        return _export(
            DynamicCacheModule(model), {"input_ids": ids, "past_key_values": cache}, dynamic_shapes, strict, []
        )


def _export(
    module: torch.nn.Module, arguments: dict[str, Any], dynamic_shapes: Any, strict: bool | None, reasons: list[str]
) -> torch.export.ExportedProgram:
    """Export, or say why it cannot be done.

    Where `strict` is None both ways are tried: torch 2.5 refuses slices of layers when not strict, and other releases
    refuse more when strict.
    """
    for way in (False, True) if strict is None else (strict,):
        try:
            with torch.no_grad():
                return torch.export.export(module, (), arguments, dynamic_shapes=dynamic_shapes, strict=way)
        except Exception as error:  # noqa: BLE001 (the message below names it, with the others)
            reasons.append(f"strict={way}: {type(error).__name__}: {_first_line(error)}")
    raise CacheStructureError(
        f"{type(module).__name__} does not export here ({probes.release()}): " + "; ".join(reasons) + ". See "
        "docs/known-failures for what torch and transformers refuse"
    )


def _prefilled(model: Any, batch: int) -> Any:
    ids = torch.arange(4).repeat(batch, 1) % _text_config(model).vocab_size
    return model(input_ids=ids, use_cache=True).past_key_values


def _transformers_recipe(
    model: Any, ids: torch.Tensor, positions: torch.Tensor, dynamic_shapes: Any, strict: bool | None
) -> torch.export.ExportedProgram:
    """Transformers' own recipe, accepted only if its program answers like its module on the example.

    Raises:
        CacheStructureError: its program does not take the arguments that the recipe promises, or answers differently.
    """
    recipe = importlib.import_module("transformers.integrations.executorch").convert_and_export_with_cache
    if dynamic_shapes is None and strict is None:
        # Up to 4.49 it has no more parameters than these.
        program: torch.export.ExportedProgram = recipe(model, ids, positions)
    else:
        program = recipe(model, ids, positions, dynamic_shapes, strict)
    with torch.no_grad():
        found = program.module()(input_ids=ids, cache_position=positions)
        length = int(positions[0]) + ids.shape[1]
        expected = model(input_ids=ids, use_cache=False).logits if int(positions[0]) == 0 else None
    if expected is not None and not torch.allclose(found[:, :length], expected, atol=1e-4):
        raise CacheStructureError("its program answers differently from the model on the example")
    return program


def _text_config(model: Any) -> Any:
    """The decoder's part of the configuration; 4.44 has no such method and no such parts."""
    config = model.config
    return config.get_text_config() if probes.has_text_config(type(config)) else config


def _setting(model: Any, name: str) -> int | None:
    """A number of the generation config's cache_config, which is a class up to 4.55 and a dict since."""
    settings = getattr(getattr(model, "generation_config", None), "cache_config", None)
    found = settings.get(name) if isinstance(settings, dict) else getattr(settings, name, None)
    return None if found is None else int(found)


def _windows(config: Any) -> int | None:
    """The model's sliding window, if some of its layers have one."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if window is None or not getattr(config, "use_sliding_window", True):
        return None
    return window if types is None or "sliding_attention" in types else None


def _static_cache(model: Any, batch_size: int, max_cache_len: int) -> Any:
    """A StaticCache of full layers with their tensors allocated; windows are the mask's business."""
    config = _text_config(model)
    cls: Any = probes.cache_class("StaticCache")
    arguments: dict[str, Any] = {"config": config, "max_cache_len": max_cache_len}
    on_demand = probes.allocates_on_demand(cls)
    if "max_batch_size" in probes.parameters_of(cls.__init__) or not on_demand:
        arguments |= {"max_batch_size": batch_size, "device": model.device, "dtype": model.dtype}
    cache = cls(**arguments)
    if not on_demand:
        return cache
    static = probes.cache_class("StaticLayer")
    cache.layers = [layer if type(layer) is static else static(max_cache_len) for layer in cache.layers]  # type: ignore[misc]
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache.early_initialization(batch_size, heads, size, model.dtype, model.device)
    return cache


def _tensors(cache: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors of a static cache with the names that ExecuTorch's runtime knows."""
    if not hasattr(cache, "layers"):
        pairs = list(zip(cache.key_cache, cache.value_cache, strict=False))
        return [
            (f"{kind}_cache_{i}", t)
            for i, pair in enumerate(pairs)
            for kind, t in zip(("key", "value"), pair, strict=False)
        ]
    found = []
    for index, layer in enumerate(cache.layers):
        found += [(f"key_cache_{index}", layer.keys), (f"value_cache_{index}", layer.values)]
        if isinstance(getattr(layer, "cumulative_length", None), torch.Tensor):
            found.append((f"cumulative_length_{index}", layer.cumulative_length))
    return found


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
