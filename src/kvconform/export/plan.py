"""What a model wants at a prefill and at a decode step, learnt from calls of `generate()`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as py_pytree

from kvconform.export import rules
from kvconform.export.errors import WatchError
from kvconform.export.rules import State
from kvconform.export.watch import Call, Watched

__all__ = ["Phase", "Plan", "is_prefill", "learn", "state_of", "step_inputs"]

# What the tokens of a step are called: by encoder-decoders, and by everything else.
_IDS = ("decoder_input_ids", "input_ids")


@dataclass(frozen=True)
class Phase:
    """The inputs of one kind of call.

    Attributes:
        rules: for each input that is a tensor, the name of its rule.
        settings: arguments that are no tensors and the same at every call: they become part of the program.
    """

    rules: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How a model is called by `generate()`.

    Attributes:
        source: what `generate()` calls the prompt: `input_ids`, or the features of speech.
        cache: the argument that is the cache, which is the name of the output too.
        ids: the argument that is the tokens of a step.
        prefill: the first call.
        decode: the calls after it.
        start: of an encoder-decoder the tokens that its decoder begins with, else ().
        encoder: of an encoder-decoder the arguments of the encoder that are tensors, else ().
        padded: whether prompts with padding were watched. Where none was, `generate()` of 5.x gives no mask.
        infers_mask: whether `generate()` takes padding for padding where no mask is given. Encoder-decoders of 4.57 do,
            those of 5.23 do not.
        begins_anew: the length past which `generate()` drops the cache and computes all tokens again, because the
            positions have other frequencies there (longrope of Phi-3); None where it never does.
        encoded: of an encoder-decoder what its encoder returns: the class as `module:name`. A mixture of experts reads
            the logits of its routers there (Switch Transformers, NLLB-MoE), which other outputs have no field for.
    """

    source: str
    cache: str
    ids: str
    prefill: Phase
    decode: Phase
    start: tuple[int, ...] = ()
    encoder: tuple[str, ...] = ()
    padded: bool = True
    infers_mask: bool = True
    begins_anew: int | None = None
    encoded: str = "transformers.modeling_outputs:BaseModelOutput"

    @property
    def takes_mask(self) -> bool:
        """Whether the programs have the mask as an input."""
        return bool({"mask", "prompt mask"} & {*self.prefill.rules.values()})

    def encoded_as(self, hidden: torch.Tensor) -> Any:
        """The hidden state, of shape (batch, length, width), as the encoder's output that the decoder is given."""
        module, _, name = self.encoded.partition(":")
        return getattr(importlib.import_module(module), name)(last_hidden_state=hidden)


def learn(watched: list[Watched]) -> Plan:
    """Read the calls of several generations.

    Args:
        watched: generations of other batch sizes and lengths, with padding on the left.

    Raises:
        WatchError: an input follows no rule, or an argument that is no tensor changes from call to call.
    """
    first = watched[0].calls[0]
    ids = next((name for name in _IDS if name in first.inputs), None)
    if ids is None:
        raise WatchError(f"generate() gives this model no {' or '.join(_IDS)}: {', '.join(first.inputs)}")
    prefills = [(state_of(one, 0, ids), one.calls[0]) for one in watched]
    steps = [(state_of(one, at, ids), one.calls[at]) for one in watched for at in range(1, len(one.calls))]
    encoder, cache = watched[0].encoder, watched[0].cache
    return Plan(
        source=next(iter(watched[0].prompt)),
        cache=cache,
        ids=ids,
        prefill=_phase(prefills, cache),
        decode=_phase(steps, cache),
        start=() if encoder is None else tuple(first.inputs[ids][0].tolist()),
        encoder=() if encoder is None else tuple(_tensors(encoder)),
        padded=any(_is_padded(one) for one in watched),
        encoded=_class_of(first.inputs.get("encoder_outputs")) or Plan.encoded,
    )


def state_of(watched: Watched, at: int, ids: str) -> State:
    """Where a watched generation stood before its call number `at`.

    Raises:
        WatchError: it begins with fewer tokens than its prompt has.
    """
    call = watched.calls[at]
    tokens = call.inputs[ids]
    seen = 0 if is_prefill(watched, at, ids) else watched.calls[0].inputs[ids].shape[1] + at - 1
    source = next(iter(watched.prompt.values()))
    prompt_mask = watched.prompt.get("attention_mask")
    if prompt_mask is None:
        prompt_mask = torch.ones(source.shape[:2], dtype=torch.long, device=source.device)
    begun = prompt_mask if watched.encoder is None else prompt_mask.new_ones((tokens.shape[0], 0))
    length = seen + tokens.shape[1]
    if length < begun.shape[1]:
        # Musicgen cuts its prompt back to the tokens before its codebooks differ.
        raise WatchError(
            f"generate() begins with {length} of the {begun.shape[1]} tokens of a prompt: what becomes of the others "
            "is unknown here. Export its steps with torch.export.export and exportable()"
        )
    more = prompt_mask.new_ones((tokens.shape[0], length - begun.shape[1]))
    return State(tokens, torch.cat([begun, more], dim=1), prompt_mask, _encoded(call))


def _is_padded(watched: Watched) -> bool:
    mask = watched.prompt.get("attention_mask")
    return mask is not None and not bool(mask.all())


def is_prefill(watched: Watched, at: int, ids: str) -> bool:
    """Whether a call is given all tokens: the first one, and one that begins anew."""
    return at == 0 or watched.calls[at].inputs[ids].shape[1] == watched.calls[0].inputs[ids].shape[1] + at


def _class_of(output: Any) -> str:
    """The class of an encoder's output, as `module:name`; "" for a tuple or a tensor."""
    if not hasattr(output, "last_hidden_state"):
        return ""
    return f"{type(output).__module__}:{type(output).__qualname__}"


def _encoded(call: Call) -> torch.Tensor | None:
    value = call.inputs.get("encoder_outputs")
    return None if value is None else _tensor_of(value)


def _phase(seen: list[tuple[State, Call]], cache: str) -> Phase:
    first = seen[0][1]
    names = [name for name in first.inputs if name != cache]
    for _, call in seen:
        if [name for name in call.inputs if name != cache] != names:
            raise WatchError(f"generate() gives other inputs from call to call: {names}, then {list(call.inputs)}")
    found, settings = {}, {}
    for name in names:
        tensors = [(state, _tensor_of(call.inputs[name])) for state, call in seen]
        values = [(state, value) for state, value in tensors if value is not None]
        if len(values) == len(tensors):
            found[name] = rules.explain(name, values)
            continue
        settings[name] = first.inputs[name]
        if any(call.inputs[name] != settings[name] for _, call in seen):
            raise WatchError(
                f"generate() changes the argument {name!r} from call to call ({settings[name]!r} first), which is no "
                "tensor: a program holds it fixed"
            )
    return Phase(found, settings)


def _tensor_of(value: Any) -> torch.Tensor | None:
    """A tensor as it is, an encoder's output as its hidden state, anything else as None."""
    if isinstance(value, torch.Tensor):
        return value
    hidden = getattr(value, "last_hidden_state", None)
    return hidden if isinstance(hidden, torch.Tensor) else None


def _tensors(call: Call) -> list[str]:
    return [name for name, value in call.inputs.items() if isinstance(value, torch.Tensor)]


def step_inputs(plan: Plan, watched: Watched, at: int) -> dict[str, Any]:
    """What a program is given for call number `at` of a generation: the tensors of the phase, and the cache last.

    The tensors follow from the rules, not from the call: `generate()` of 5.x leaves out a mask without padding.
    Slices of longer tensors are made whole: torch.export would put their strides into the program's conditions.
    """
    state = state_of(watched, at, plan.ids)
    phase = plan.prefill if is_prefill(watched, at, plan.ids) else plan.decode
    given: dict[str, Any] = {name: rules.rule_named(rule)(state).contiguous() for name, rule in phase.rules.items()}
    leaves, spec = py_pytree.tree_flatten(watched.calls[at].inputs.get(plan.cache))
    whole = [leaf.contiguous() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    return {**given, plan.cache: py_pytree.tree_unflatten(whole, spec)}
