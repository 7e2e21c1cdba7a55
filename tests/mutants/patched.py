"""Patches that are slightly wrong, one fault a patch: checks of the category `patches` must notice each."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from kvconform.patches import Patch, Replacement
from kvconform.patches.registry import find
from kvconform.patches.tracing import is_traced

Change = Callable[[Any], Any]
SPOILED: dict[str, Change] = {}
"""By the name of a patch: what its first replacement is turned into, or each where it replaces in models."""


def spoils(name: str) -> Callable[[Change], Change]:
    def keep(change: Change) -> Change:
        SPOILED[name] = change
        return change

    return keep


def spoiled(name: str) -> Patch:
    """The patch with its fault."""
    patch = find(name)

    def wrong(one: Replacement) -> Replacement:
        return replace(one, make=lambda before: SPOILED[name](one.make(before)))

    def replacements() -> tuple[Replacement, ...]:
        first, *others = patch.replacements()
        return wrong(first), *(map(wrong, others) if patch.of_module else others)

    return replace(patch, name=f"{name}, spoiled", replacements=replacements)


@spoils("vmap-masks")
def sees_the_next_token(expand: Any) -> Any:
    """A query sees one key too many where it is traced."""
    return lambda function, *more: expand(lambda b, h, q, k: function(b, h, q + is_traced(q), k), *more)


@spoils("length-of-tensor")
def is_a_plain_number(length: Any) -> Any:
    """The length is an int again, and a dynamic batch a constant."""
    return lambda of: int(length(of))


@spoils("slice-of-modules")
def loses_the_last(getitem: Any) -> Any:
    """A slice lacks its last module where it is traced."""

    def lacking(self: torch.nn.ModuleList, index: Any) -> Any:
        found = getitem(self, index)
        return torch.nn.ModuleList(list(found)[:-1]) if isinstance(index, slice) and is_traced() else found

    return lacking


class _KeepsAll(TorchFunctionMode):
    """Nothing is masked."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is torch.Tensor.masked_fill else func(*args, **(kwargs or {}))


@spoils("experts-by-data")
def adds_what_was_not_chosen(run: Any) -> Any:
    """Every expert's answer is added to every token."""

    def adding(self: Any, *args: Any, **named: Any) -> Any:
        with _KeepsAll():
            return run(self, *args, **named)

    return adding


class _Answering(TorchFunctionMode):
    """Every tensor has one truth."""

    def __init__(self, *, truth: bool) -> None:
        super().__init__()
        self.truth = truth

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.truth if func is torch.Tensor.__bool__ else func(*args, **(kwargs or {}))


def _always(method: Any, *, truth: bool) -> Any:
    """The method as it was without the patch, each of whose questions has one answer while it is traced."""
    original = method.__wrapped__

    @functools.wraps(original)
    def wrong(self: Any, *args: Any, **named: Any) -> Any:
        if not is_traced(*args, *named.values()):
            return original(self, *args, **named)
        with _Answering(truth=truth):
            return original(self, *args, **named)

    return wrong


@spoils("experts-in-pieces")
def halves_what_experts_make(forward: Any) -> Any:
    """What is traced of a block's function, the router's aside, is half of what it should be."""
    original = forward.__wrapped__

    @functools.wraps(original)
    def wrong(*args: Any, **named: Any) -> Any:
        found = forward(*args, **named)
        return found / 2 if isinstance(found, torch.Tensor) and is_traced(found) else found

    return wrong


@spoils("branch-on-position")
def takes_every_step_for_a_prompt(forward: Any) -> Any:
    """A decode step is traced as the beginning of a prompt."""
    return _always(forward, truth=False)


@spoils("branch-on-mask")
def takes_every_mask_for_ones(method: Any) -> Any:
    """Padding is not hidden from the states of what is traced."""
    return _always(method, truth=True)


@spoils("rope-of-a-length")
def frequencies_of_short_sequences(forward: Any) -> Any:
    """What is traced has the frequencies that the model was made with, however long a sequence is."""
    original = inspect.unwrap(forward)

    @functools.wraps(forward)
    def wrong(self: Any, x: Any, position_ids: Any, *args: Any, **named: Any) -> Any:
        called = original if is_traced(x, position_ids) else forward
        return called(self, x, position_ids, *args, **named)

    return wrong


@spoils("masks-too-long")
def loses_the_first_key(update: Any) -> Any:
    """The mask that is traced is cut at its other end."""

    @functools.wraps(update)
    def wrong(*args: Any, **named: Any) -> Any:
        found = update(*args, **named)
        if not isinstance(found, torch.Tensor) or not is_traced(found):
            return found
        return torch.cat([found[..., 1:], found[..., -1:]], dim=-1)

    return wrong


@spoils("experts-in-groups")
def the_last_row_goes_to_the_first_expert(linear: Any) -> Any:
    """The weights of another expert for one token."""

    @functools.wraps(linear)
    def wrong(rows: Any, weights: Any, bias: Any, ends: Any, **named: Any) -> Any:
        if not is_traced(rows):
            return linear(rows, weights, bias, ends, **named)
        return linear(rows, weights, bias, ends - 1, **named)

    return wrong


@spoils("processor-arguments")
def asks_for_the_signature_of_nothing(parse: Any) -> Any:
    """What was replaced is called all the same."""
    return parse.__wrapped__


@spoils("returned-objects")
def gives_nothing_back(_: Any) -> Any:
    """In the place of an object that came in the module returns nothing."""
    return lambda _, codegen: codegen.append_output(codegen.create_load_const(None))


@spoils("guarded-objects")
def guards_the_next_dimension(export: Any) -> Any:
    """A guard on a size of keys asks the dimension after it."""

    def wrong(*args: Any, **named: Any) -> Any:
        captured = export(*args, **named)
        found = importlib.import_module("torch._dynamo.source").TensorPropertySource
        for sources in _shape_env_of(captured).var_to_sources.values():
            sources[:] = [found(one.base, one.prop, one.idx + ("key" in one.base.name())) for one in sources]
        return captured

    return wrong


@spoils("variadic-keywords")
def forgets_what_is_dynamic(export: Any) -> Any:
    """Every size is a constant again."""

    @functools.wraps(export)
    def wrong(mod: Any, args: Any, kwargs: Any = None, dynamic_shapes: Any = None, **settings: Any) -> Any:
        return export(mod, args, kwargs, None, **settings)

    return wrong


@spoils("windows-in-pieces")
def gives_the_window_alone(update: Any) -> Any:
    """A piece that crosses the window gets one token before it too few."""

    @functools.wraps(update)
    def wrong(*args: Any, **named: Any) -> Any:
        keys, values = update(*args, **named)
        keys = keys.clone()
        keys[:, :, 0] = 0
        return keys, values

    return wrong


@spoils("skipped-layers")
def writes_where_it_does_not_belong(update: Any) -> Any:
    """What comes after a skipped layer is written in the next one too few."""

    @functools.wraps(update)
    def wrong(self: Any, keys: Any, values: Any, layer: int, *more: Any, **named: Any) -> Any:
        return update(self, keys, values, max(layer - 1, 0), *more, **named)

    return wrong


@spoils("sliding-window-constructor")
def is_one_short(construct: Any) -> Any:
    """The cache has a place too few."""

    @functools.wraps(construct)
    def wrong(self: Any, config: Any, *args: Any, **named: Any) -> None:
        construct(self, config, *args, **{**named, "max_cache_len": named["max_cache_len"] - 1})

    return wrong


def _shape_env_of(captured: Any) -> Any:
    return importlib.import_module("torch.export.exported_program")._get_shape_env(captured)


@spoils("convolution-states")
def keeps_the_first_inputs(update: Any) -> Any:
    """What is kept of a prompt is one token late."""

    @functools.wraps(update)
    def wrong(self: Any, conv_states: Any, *args: Any, **named: Any) -> Any:
        found = update(self, conv_states, *args, **named)
        if is_traced(conv_states):
            kept = self.conv_states[named.get("state_idx", 0)]
            kept.copy_(kept.roll(1, -1))
        return found

    return wrong


@spoils("scan-of-tokens")
def reads_a_state_too_early(scan: Any) -> Any:
    """Each token is answered as the one before it, where the length is dynamic."""

    @functools.wraps(scan)
    def wrong(hidden_states: Any, *args: Any, **named: Any) -> Any:
        found = scan(hidden_states, *args, **named)
        if not isinstance(hidden_states.shape[-1], torch.SymInt):
            return found
        return (found[0].roll(1, -1), *found[1:]) if isinstance(found, tuple) else found.roll(1, -1)

    return wrong
