"""Mixtures of experts that sort their tokens by expert and cut them into pieces, while they are traced.

JetMoE and, until 5.x, Granite MoE split the sorted tokens by a list of sizes. Aria slices them at sums of sizes (until
5.x), and DeepSeek V2 does so in a loop that leaves out experts whom no token chose (4.54 to 4.57). The sizes are data,
which torch.export does not follow. Here every expert sees every token, and each row keeps the answer of the expert to
whom it belongs. It costs as many products as there are experts, whatever was chosen.

Dynamo (a strict export, torch.compile) traces what stands here too, where it follows the code around it.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from kvconform.patches.of_models import in_loaded_modules, model_classes, source_of
from kvconform.patches.patch import Answer, Patch, Replacement, needed, not_applicable
from kvconform.patches.tracing import is_traced

__all__ = ["PATCH"]

_GEMM = "sequential_experts_gemm"
_SAYS = {
    "granitemoe": "expert_size = expert_size.tolist()",
    "jetmoe": "expert_size = expert_size.tolist()",
    "aria": f"def {_GEMM}",
    "deepseek_v2": "enumerate(tokens_per_expert)",
}
"""What the source of a model has that cuts its tokens into pieces."""


def _probe() -> Answer:
    if importlib.util.find_spec("transformers") is None:
        return not_applicable("transformers is not installed")
    if not any(text in (source_of(model) or "") for model, text in _SAYS.items()):
        return not_applicable("no model of this release cuts its tokens into a piece for each expert")
    return needed("models of this release cut their tokens into a piece for each expert, and the sizes are data")


def _each_in_its_piece(
    tokens: torch.Tensor, sizes: torch.Tensor, products: Iterable[Callable[[torch.Tensor], torch.Tensor]]
) -> torch.Tensor:
    """What the experts make of tokens that are sorted by expert.

    Args:
        tokens: of shape (tokens, width).
        sizes: how many of them belong to each expert, of shape (experts,).
        products: the experts, each of which keeps the number of tokens.

    Returns:
        Of shape (tokens, width of the answers).
    """
    ends = sizes.to(tokens.device).cumsum(0)
    rows = torch.arange(tokens.shape[0], device=tokens.device)
    owner = (rows[:, None] >= ends[None, :]).sum(1)
    first, *others = products
    found = first(tokens)
    for number, product in enumerate(others, 1):
        found = torch.where((owner == number)[:, None], product(tokens), found)
    return found


class _SizesAsTensor(TorchFunctionMode):
    """Inside one call of a router the list of sizes stays the tensor that it is made from."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Give the tensor itself for its list."""
        return args[0] if func is torch.Tensor.tolist else func(*args, **(kwargs or {}))


def _router(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for the `forward` of a router that gives the sizes as a list."""

    @functools.wraps(original)
    def forward(self: Any, hidden_states: torch.Tensor) -> Any:
        if torch.compiler.is_dynamo_compiling() or not is_traced(hidden_states):
            return original(self, hidden_states)
        with _SizesAsTensor():
            return original(self, hidden_states)

    return forward


def _linear_experts(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for the `forward` of experts that split their inputs by a list of sizes."""

    @functools.wraps(original)
    def forward(self: Any, inputs: torch.Tensor, expert_size: Any) -> Any:
        if not isinstance(expert_size, torch.Tensor):
            return original(self, inputs, expert_size)
        products = (functools.partial(torch.nn.functional.linear, weight=one) for one in self.weight)
        return _each_in_its_piece(inputs, expert_size, products)

    return forward


def _gemm(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for `sequential_experts_gemm`."""

    @functools.wraps(original)
    def gemm(token_states: torch.Tensor, expert_weights: torch.Tensor, tokens_per_expert: torch.Tensor) -> Any:
        if not is_traced(token_states):
            return original(token_states, expert_weights, tokens_per_expert)
        products = (functools.partial(torch.matmul, other=one) for one in expert_weights)
        return _each_in_its_piece(token_states, tokens_per_expert, products)

    return gemm


def _moe(original: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for the `moe` of DeepSeek V2."""

    @functools.wraps(original)
    def moe(self: Any, hidden_states: torch.Tensor, topk_ids: torch.Tensor, topk_weight: torch.Tensor) -> Any:
        if not is_traced(hidden_states):
            return original(self, hidden_states, topk_ids, topk_weight)
        found = torch.stack([expert(hidden_states) for expert in self.experts], dim=1)
        chosen = found.gather(1, topk_ids[..., None].expand(-1, -1, found.shape[-1]))
        weighted = chosen.type(topk_weight.dtype) * topk_weight[..., None]
        return weighted.sum(dim=1).type(found.dtype)

    return moe


_OF_CLASSES: tuple[tuple[str, tuple[str, ...], str, Callable[..., Any]], ...] = (
    ("forward", ("self", "hidden_states"), "expert_size", _router),
    ("forward", ("self", "inputs", "expert_size"), "input_list", _linear_experts),
    ("moe", ("self", "hidden_states", "topk_ids", "topk_weight"), "tokens_per_expert", _moe),
)
"""A method, its parameters, a local variable by which it is known, and what stands for it."""


def _of_module(module: ModuleType) -> tuple[Replacement, ...]:
    """The functions of a module that cut tokens into pieces."""
    found = [Replacement(module, _GEMM, _gemm)] if inspect.isfunction(vars(module).get(_GEMM)) else []
    for cls in model_classes(module):
        found += [
            Replacement(cls, name, make)
            for name, parameters, local, make in _OF_CLASSES
            if _is_like(vars(cls).get(name), parameters, local)
        ]
    return tuple(found)


def _is_like(member: Any, parameters: tuple[str, ...], local: str) -> bool:
    code = getattr(inspect.unwrap(member), "__code__", None) if inspect.isfunction(member) else None
    if code is None:
        return False
    return code.co_varnames[: code.co_argcount] == parameters and local in code.co_varnames[code.co_argcount :]


PATCH = Patch(
    name="experts-in-pieces",
    replaces="the functions of transformers' models that give each expert a piece of the tokens, when traced",
    why="how many tokens chose an expert is data, which torch.export does not follow",
    page="docs/known-failures/experts-by-data.md",
    probe=_probe,
    replacements=lambda: in_loaded_modules(_of_module),
    of_module=_of_module,
)
