"""How the keys and values of a cache lie in memory, and what they require: gradients, strides, one storage, one tensor.

Each name of `TENSORS` is a property that a real cache has and that a registration can lose by copying, detaching or
taking two tensors for two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kvconform.checks.needs import NotApplicableError


def replace_tensors(part: Any, change: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
    """Replace keys and values, in order: `change(tensor, index)`. Layers without tensors are left alone.

    Raises:
        NotApplicableError: the tensors are buffers of a module (static caches until 4.49).
    """
    index = 0
    for layer in vars(part).get("layers") or ():
        for name in ("keys", "values"):
            if _is_state(vars(layer).get(name)):
                setattr(layer, name, change(getattr(layer, name), index))
                index += 1
    lists = {name: vars(part).get(name) for name in ("key_cache", "value_cache")}
    for pair in range(len(lists["key_cache"] or ())):
        for name, held in lists.items():
            if held is not None and _is_state(held[pair]):
                before, held[pair] = held[pair], change(held[pair], index)
                _replace_buffer(part, f"{name}_{pair}", before, held[pair])
                index += 1
    if index == 0 and isinstance(part, torch.nn.Module):
        raise NotApplicableError("the keys and values of this cache are buffers, and cannot be replaced one by one")


def _replace_buffer(part: Any, name: str, before: torch.Tensor, after: torch.Tensor) -> None:
    """Static caches that are modules (until 4.48) register the tensors of their lists as buffers too."""
    buffers = vars(part).get("_buffers", {})
    if buffers.get(name) is before:
        buffers[name] = after


def _is_state(value: Any) -> bool:
    """Layers that nothing was written to hold nothing, or something empty of one dimension."""
    return isinstance(value, torch.Tensor) and value.dim() == 4  # noqa: PLR2004


def _each(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], None]:
    return lambda part: replace_tensors(part, lambda tensor, _: change(tensor))


def _in_turn(*changes: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], None]:
    """Each tensor by the next of some changes."""
    return lambda part: replace_tensors(part, lambda tensor, index: changes[index % len(changes)](tensor))


def _require_gradient(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_()


def _compute_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    return _require_gradient(tensor) * 1


def _stride(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def _slice(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat([tensor, tensor, tensor], dim=-2)[:, :, tensor.shape[2] : 2 * tensor.shape[2]]


def _expand(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:1].expand(tensor.shape)


def _keep(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _parameter(tensor: torch.Tensor) -> torch.Tensor:
    return torch.nn.Parameter(tensor.detach().clone(), requires_grad=False)


class OwnTensor(torch.Tensor):
    """A user's subclass of Tensor."""


def _own_tensor(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().as_subclass(OwnTensor)


def _mark(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with a mark for torch's compiler and one of the user's, which are attributes of it."""
    torch._dynamo.mark_static_address(tensor)
    tensor.own_mark = object()  # type: ignore[attr-defined]
    return tensor


def _of_inference(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor made in inference mode, as those of `generate` may be: it has no version and no gradient."""
    with torch.inference_mode():
        return tensor.clone()


def _one_storage(part: Any) -> None:
    """All keys and values become views of one storage, one after the other."""
    held: list[torch.Tensor] = []
    replace_tensors(part, lambda tensor, _: _remember(held, tensor))
    if not held:
        return
    storage = torch.cat([tensor.reshape(-1) for tensor in held])
    places = [0]
    for tensor in held:
        places.append(places[-1] + tensor.numel())
    replace_tensors(part, lambda tensor, index: storage[places[index] : places[index + 1]].view(tensor.shape))


def _values_are_keys(part: Any) -> None:
    held: list[torch.Tensor] = []
    replace_tensors(part, lambda tensor, index: _remember(held, tensor) if index % 2 == 0 else held[-1])


def _all_layers_alike(part: Any) -> None:
    """Every layer has the very tensors of the first one, as models have whose layers share keys and values."""
    held: list[torch.Tensor] = []
    replace_tensors(part, lambda tensor, index: _remember(held, tensor) if index < 2 else held[index % 2])  # noqa: PLR2004


def _share_elements(part: Any) -> None:
    """The values are another view of the keys' elements."""
    held: list[torch.Tensor] = []
    replace_tensors(part, lambda tensor, index: _remember(held, tensor) if index % 2 == 0 else held[-1][:])


def _remember(held: list[torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    held.append(tensor)
    return tensor


TENSORS: dict[str, Callable[[Any], None]] = {
    "grad": _each(_require_gradient),
    "graph": _each(_compute_with_gradient),
    "keys-grad": _in_turn(_require_gradient, _keep),
    "strided": _each(_stride),
    "sliced": _each(_slice),
    "expanded": _each(_expand),
    "one-storage": _one_storage,
    "values-are-keys": _values_are_keys,
    "layers-alike": _all_layers_alike,
    "shared-elements": _share_elements,
    "parameters": _each(_parameter),
    "own-tensors": _each(_own_tensor),
    "inference": _each(_of_inference),
    "marked": _each(_mark),
}
"""Ways in which keys and values can be other than new tensors of their own, by name."""
