"""Checks of a cache as a pytree: what flattening and unflattening it keeps, names and promises."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import torch
import torch.fx._pytree as fx_pytree
import torch.utils._pytree as pytree

from kvconform.checks.behave import (
    answers,
    answers_of_a_new_layer,
    append,
    changed_copies,
    first_tensor,
    layer_count,
    states,
)
from kvconform.checks.errors import ExpectationError, expect, expect_equal
from kvconform.checks.needs import NotApplicableError
from kvconform.checks.observe import Difference, differences, is_state, observe
from kvconform.checks.paths import expect_counted_paths

# From this many dimensions on a tensor is a layer's state, not a counter, and a round trip must not copy it.
_SHOWN = 3
# `.key_cache[1]`, or `._buffers['key_cache_1']` where static caches were modules.
_LIST_PATH = re.compile(r"(?:\._buffers\['|\.)(?P<kind>key|value)_cache[\[_](?P<layer>\d+)")


def expect_registered(value: Any, where: str = "") -> None:
    """Prove that every class in `value` is a node itself (a node for a base class does not count)."""
    __tracebackhide__ = True
    expect(type(value) in pytree.SUPPORTED_NODES, f"{type(value).__name__} is not registered as a pytree node", where)


def expect_no_differences(found: list[Difference], what: str, where: str = "") -> None:
    """Raise with the first few of `found`; `what` says what was compared."""
    __tracebackhide__ = True
    if found:
        shown = "; ".join(str(one) for one in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ExpectationError(f"{what}: {shown}{more}{f' [{where}]' if where else ''}")


def round_trip(value: Any, where: str = "") -> Any:
    """Flatten and unflatten `value`, which must be registered."""
    __tracebackhide__ = True
    expect_registered(value, where)
    leaves, spec = pytree.tree_flatten(value)
    return pytree.tree_unflatten(leaves, spec)


def expect_round_trip(cache: Any, where: str = "") -> Any:
    """Prove that a cache comes back whole, and return what came back.

    Everything reachable from it is equal: tensors by identity, counters, windows, maximum lengths, layer classes and
    order. Flattening
    leaves the original as it was, and the copy flattens to the same leaves and an equal spec.
    """
    __tracebackhide__ = True
    before = observe(copy.deepcopy(cache))
    expect_registered(cache, where)
    leaves, spec = pytree.tree_flatten(cache)
    restored = pytree.tree_unflatten(leaves, spec)
    expect_no_differences(differences(observe(cache), before), "flattening changed the original", where)
    original = observe(cache)
    expect_no_differences(differences(observe(restored), original), "lost in a round trip", where)
    for path, tensor in observe(restored).items():
        if is_state(tensor):
            expect(tensor is original[path], f"{path} is a copy, expected the same tensor", where)
    again, spec_again = pytree.tree_flatten(restored)
    expect(spec_again == spec, f"the spec of the restored cache is {spec_again}, expected {spec}", where)
    expect(
        all(a is b or (not isinstance(a, torch.Tensor) and a == b) for a, b in zip(again, leaves, strict=True)),
        "the restored cache has other leaves",
        where,
    )
    return restored


def expect_same_behaviour(cache: Any, where: str = "") -> None:
    """Prove that a restored cache answers every question, and changes by every operation, as the original does."""
    __tracebackhide__ = True
    expected = answers(copy.deepcopy(cache))
    restored = round_trip(cache, where)
    expect_no_differences(differences(answers(restored), expected), "a restored cache behaves otherwise", where)


def expect_whole_after_changes(cache: Any, where: str = "") -> None:
    """Prove that a cache comes back whole after each operation that the release offers for it.

    Raises:
        NotApplicableError: the release refuses all of them for this cache.
    """
    __tracebackhide__ = True
    expect_registered(cache, where)
    changed = [*changed_copies(cache)]
    for name, copied in changed:
        expect_round_trip(copied, f"{where}; after {name}")
    if not changed:
        raise NotApplicableError("this release can do nothing to such a cache")


def expect_same_new_layer(cache: Any, where: str = "") -> None:
    """Prove that a restored cache takes, or refuses, one layer more as the original does."""
    __tracebackhide__ = True
    expected = answers_of_a_new_layer(copy.deepcopy(cache))
    restored = round_trip(cache, where)
    expect_no_differences(
        differences(answers_of_a_new_layer(restored), expected), "a restored cache behaves otherwise", where
    )


def expect_flattens(value: Any, where: str = "") -> None:
    """Prove that `value` is a node whose leaves survive; `expect_round_trip` asks for everything else."""
    __tracebackhide__ = True
    leaves = pytree.tree_leaves(value)
    restored = round_trip(value, where)
    expect_equal("the restored type", type(restored).__name__, type(value).__name__, where)
    expect(
        all(a is b for a, b in zip(pytree.tree_leaves(restored), leaves, strict=True)),
        "the restored leaves are others",
        where,
    )


def expect_model_output(cache: Any) -> None:
    """Prove that a model's output with a cache in it comes back whole, and begins with what was set first."""
    __tracebackhide__ = True
    from transformers.modeling_outputs import BaseModelOutputWithPast

    expect_registered(cache)
    expect_flattens(BaseModelOutputWithPast(last_hidden_state=torch.ones(2, 3), past_key_values=cache))
    late = BaseModelOutputWithPast(past_key_values=cache)
    late["last_hidden_state"] = torch.ones(2, 3)
    restored = round_trip(late)
    expect_equal("the items of a model's output", [*restored], [*late])
    expect(type(restored[0]) is type(cache), f"a model's output begins with a {type(restored[0]).__name__}")


def expect_independent(cache: Any, where: str = "") -> None:
    """Prove that growing the restored cache leaves the original as it was: they share tensors, not lists or layers.

    For caches that grow by concatenation; one that writes into preallocated tensors shares these on purpose.
    """
    __tracebackhide__ = True
    before = observe(copy.deepcopy(cache))
    restored = round_trip(cache, where)
    tensor = first_tensor(cache)
    batch, heads, width = (2, 2, 8) if tensor is None else (tensor.shape[0], tensor.shape[1], tensor.shape[-1])
    part = getattr(restored, "self_attention_cache", restored)
    for layer in range(layer_count(cache)):
        keys, values = states(batch, heads, 2, width, seed=70 + layer)
        append(part, keys, values, layer, int(part.get_seq_length(layer)))
    expect_no_differences(
        differences(observe(cache), before), "updating the restored cache changed the original", where
    )


def expect_leaves_in_order(cache: Any, where: str = "") -> None:
    """Prove that the leaves are the keys and values of each layer in turn (k0, v0, k1, v1), each tensor once.

    Flat `dynamic_shapes` and exported signatures are written in this order. Leaves that are no state (an int, a
    counter) may stand between.
    """
    __tracebackhide__ = True
    expect_registered(cache, where)
    names = {id(tensor): path for path, tensor in observe(cache).items() if is_state(tensor)}
    got = [
        names.get(id(leaf), "a tensor that is not in the cache") for leaf in pytree.tree_leaves(cache) if is_state(leaf)
    ]
    expect_equal("the order of the leaves", got, _expected_order(cache), where)


def _one_more(tensor: torch.Tensor) -> torch.Tensor:
    """Float8 has no addition of its own."""
    return (tensor.float() + 1).to(tensor.dtype) if tensor.element_size() == 1 else tensor + 1


def _expected_order(cache: Any) -> list[str]:
    """Paths of the states: layer by layer, keys before values, what else there is as it is held; the first part first.

    Until 4.53 a quantized cache has lists of its own beside those of keys and values.
    """
    paths = [path for path, tensor in observe(cache).items() if is_state(tensor)]
    found = {path: match for path in paths if (match := _LIST_PATH.search(path))}
    parts = list(dict.fromkeys(path[: match.start()] for path, match in found.items()))

    def rank(path: str) -> tuple[int, bool, int, bool]:
        match = found.get(path)
        if match is None:
            return max((index for index, part in enumerate(parts) if path.startswith(part)), default=0), True, 0, True
        return parts.index(path[: match.start()]), False, int(match["layer"]), match["kind"] == "value"

    return sorted(paths, key=rank)


def expect_key_paths(cache: Any, where: str = "") -> None:
    """Prove that every leaf has a path of its own, and that paths come with the same leaves as without."""
    __tracebackhide__ = True
    expect_registered(cache, where)
    leaves, spec = pytree.tree_flatten(cache)
    named, named_spec = pytree.tree_flatten_with_path(cache)
    expect_equal("the number of named leaves", len(named), len(leaves), where)
    expect(
        all(leaf is one for (_, leaf), one in zip(named, leaves, strict=True)),
        "flattening with paths gives other leaves",
        where,
    )
    expect(named_spec == spec, f"the spec of flattening with paths is {named_spec}, expected {spec}", where)
    paths = [pytree.keystr(path) for path, _ in named]
    expect(all(paths), "a leaf has an empty path", where)
    expect_equal("the number of different paths", len(set(paths)), len(paths), where)
    expect_counted_paths(cache, [leaf for _, leaf in named], paths, where)


def read_spec(text: str) -> pytree.TreeSpec:
    """The spec that JSON text stands for, read anew.

    torch keeps what it read of a text, whatever was registered then: another subject would be given that.
    """
    read: Any = getattr(pytree.treespec_loads, "__wrapped__", pytree.treespec_loads)
    spec: pytree.TreeSpec = read(text)
    return spec


def expect_json_spec(cache: Any, where: str = "") -> None:
    """Prove that the spec survives its JSON text: what it loads to is equal, and rebuilds the same cache.

    This is how `torch.export.save` keeps the structure of inputs and outputs.
    """
    __tracebackhide__ = True
    expect_registered(cache, where)
    leaves, spec = pytree.tree_flatten(cache)
    loaded = read_spec(pytree.treespec_dumps(spec))
    expect(loaded == spec, f"the spec loads as {loaded}, expected {spec}", where)
    restored = pytree.tree_unflatten(leaves, loaded)
    expect_no_differences(
        differences(observe(restored), observe(cache)), "lost through the JSON text of the spec", where
    )


def expect_spec_copies(cache: Any, where: str = "") -> None:
    """Prove that a copy of the spec, deep or by pickle as between processes, equals it and rebuilds the cache."""
    __tracebackhide__ = True
    expect_registered(cache, where)
    leaves, spec = pytree.tree_flatten(cache)
    copies = {"copy.deepcopy": copy.deepcopy(spec), "pickle": pickle.loads(pickle.dumps(spec))}  # noqa: S301 - made here
    for name, copied in copies.items():
        expect(copied == spec and spec == copied, f"{name} gives the spec {copied}, expected {spec}", where)
        restored = pytree.tree_unflatten(leaves, copied)
        expect_no_differences(differences(observe(restored), observe(cache)), f"lost by a spec of {name}", where)


def expect_spec_constant_over_length(shorter: Any, longer: Any, where: str = "") -> None:
    """Prove that the spec tells the structure and not the length: else an exported program refuses the next token."""
    __tracebackhide__ = True
    expect_registered(shorter, where)
    first, second = pytree.tree_flatten(shorter)[1], pytree.tree_flatten(longer)[1]
    expect(first == second, f"the spec of the longer cache is {second}, expected {first}", where)


def expect_spec_constant_over_batch(cache: Any, other: Any, where: str = "") -> None:
    """Prove that the spec does not tell the batch size: else a program exported with a dynamic batch takes no other."""
    __tracebackhide__ = True
    expect_registered(cache, where)
    first, second = pytree.tree_flatten(cache)[1], pytree.tree_flatten(other)[1]
    expect(first == second, f"the spec at another batch size is {second}, expected {first}", where)


def expect_fx_agrees(cache: Any, where: str = "") -> None:
    """Prove that `torch.fx._pytree`, which exported modules flatten their inputs with, gives the same leaves."""
    __tracebackhide__ = True
    expect_registered(cache, where)
    leaves, spec = pytree.tree_flatten(cache)
    expect(
        type(cache) in fx_pytree.SUPPORTED_NODES,
        f"{type(cache).__name__} is not in the tables of torch.fx._pytree",
        where,
    )
    flat = fx_pytree.tree_flatten_spec(cache, spec)
    expect_equal("the number of leaves by torch.fx._pytree", len(flat), len(leaves), where)
    expect(
        all(a is b or (not isinstance(a, torch.Tensor) and a == b) for a, b in zip(flat, leaves, strict=True)),
        "torch.fx._pytree gives other leaves",
        where,
    )


def expect_tree_map(cache: Any, where: str = "") -> None:
    """Prove that `tree_map` gives a cache of mapped tensors, else as it was, and spares the original."""
    __tracebackhide__ = True
    expect_registered(cache, where)
    before = copy.deepcopy(cache)
    mapped = pytree.tree_map(lambda leaf: _one_more(leaf) if is_state(leaf) else leaf, cache)
    expect_no_differences(differences(observe(cache), observe(before)), "tree_map changed the original", where)
    expected = {path: _one_more(atom) if is_state(atom) else atom for path, atom in observe(before).items()}
    expect_no_differences(differences(observe(mapped), expected), "wrong after tree_map", where)


def expect_leaf_types(cache: Any, where: str = "") -> None:
    """Prove that every leaf is a tensor or an int, as `torch.export` takes, and that the context hides no state."""
    __tracebackhide__ = True
    expect_registered(cache, where)
    leaves = pytree.tree_leaves(cache)
    strange = sorted(
        {type(leaf).__name__ for leaf in leaves if not isinstance(leaf, torch.Tensor) and type(leaf) is not int}
    )
    expect_equal("leaves of other types than tensor and int", strange, [], where)
    held = {id(leaf) for leaf in leaves}
    hidden = [path for path, tensor in observe(cache).items() if is_state(tensor) and id(tensor) not in held]
    expect_equal("tensors that are no leaves", hidden, [], where)
