"""The tiny models of the suite: what makes one n/a, what a step is called with, and that steps pass what they must."""

import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers", reason="the suite is about transformers")

import torch

from kvconform.checks.needs import NotApplicableError
from kvconform.checks.observe import observe
from kvconform_conformance import test_model
from kvconform_conformance.examples import steps as exported
from kvconform_conformance.examples.models import BY_NAME, DECODERS, MODELS, WINDOW
from kvconform_conformance.examples.prefills import MORE_PREFILLS, NEXT_STEPS, PREFILLS
from kvconform_conformance.examples.steps import (
    EXPORTED,
    LONGEST,
    LONGEST_BELOW,
    MAXIMUM,
    MORE_EXPORTED,
    WIDE,
    ExportedStep,
)
from kvconform_conformance.examples.tiny import TinyModel, own_class, tokens

LLAMA = DECODERS[0]


@dataclass(frozen=True)
class Answers(TinyModel):
    """A model whose answer is given."""

    answer: object = None

    def prefill(self, model, batch=2, length=6):
        return self.answer


def answering(name, answer):
    return Answers(name, LLAMA.config, LLAMA.model, LLAMA.settings, answer=answer)


def require(model):
    for need in model.needs:
        need.require()


def test_names_are_different():
    for group in (MODELS, (*EXPORTED, *MORE_EXPORTED), (*PREFILLS, *MORE_PREFILLS)):
        names = [one.name for one in group]
        assert len(set(names)) == len(names)


def test_tuples_are_not_applicable():
    with pytest.raises(NotApplicableError, match="takes and returns tuples, no cache"):
        require(answering("test-tuples", ((1, 2), (3, 4))))


@pytest.mark.parametrize("answer", [None, SimpleNamespace()], ids=["none", "object"])
def test_anything_else_is_put_to_the_check(answer):
    require(answering(f"test-{answer}", answer))


def test_a_model_that_cannot_be_built_is_no_reason_to_leave_it_out():
    broken = replace(LLAMA, name="test-broken", settings={**LLAMA.settings, "hidden_act": "no-such-activation"})
    with pytest.raises(KeyError, match="no-such-activation"):
        require(broken)


def test_a_model_that_cannot_run_is_no_reason_to_leave_it_out():
    def start(model, batch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        require(replace(LLAMA, name="test-cannot-run", start=start))


def test_positions_are_given_where_there_is_a_place():
    class Old:
        def forward(self, input_ids, past_key_values, use_cache, cache_position):
            """As until 5.3."""

    class New:
        def forward(self, input_ids, past_key_values, use_cache, **kwargs):
            """As since."""

    ids = tokens(2, 3)
    assert LLAMA.step(Old(), ids, None, None, 4)["cache_position"].tolist() == [4, 5, 6]
    assert "cache_position" not in LLAMA.step(New(), ids, None, None, 4)


def test_state_spaces_have_their_own_name_for_the_cache():
    mamba = BY_NAME["mamba"]
    assert mamba.step(SimpleNamespace(forward=lambda: None), tokens(1, 1), "cache")["cache_params"] == "cache"
    assert mamba.cache_of(SimpleNamespace(cache_params="cache")) == "cache"


def test_steps_pass_every_window_and_none():
    lengths = [length for _, length in exported.UNSEEN]
    assert exported.PROMPT > WINDOW, "the prompt alone is past the window"
    assert test_model.STEPS >= WINDOW, "the steps go over the end of a chunk"
    assert max(lengths) + exported.EXPORTED_STEPS <= min(LONGEST_BELOW, WIDE), "steps stay below a wide window"
    assert max(lengths) + exported.EXPORTED_STEPS <= min(MAXIMUM, LONGEST), "steps fit into a static cache"
    assert len({batch for batch, _ in exported.UNSEEN} | {2}) == len(exported.UNSEEN) + 1


@pytest.mark.parametrize("name", ["mistral", "mistral-below", "gemma3-static", "t5"])
def test_inputs_need_no_registration(name):
    step = next(step for step in (*EXPORTED, *MORE_EXPORTED) if step.name == name)
    model = step.tiny.build()
    inputs = step.inputs(model, 3, 7)
    assert len(inputs) == 3 + step.encodes
    held = [atom for atom in observe(inputs[1]).values() if isinstance(atom, torch.Tensor)]
    assert held
    assert all(tensor.is_contiguous() for tensor in held)
    logits, cache = step.module(model)(*inputs)
    assert logits.shape[:2] == (3, 1)
    assert type(cache) is type(inputs[1])


def test_a_static_step_keeps_windows():
    step = next(step for step in (*EXPORTED, *MORE_EXPORTED) if step.name == "mistral-static")
    cache = step.cache(step.tiny.build(), 2, 6)
    assert type(cache).__name__ == "StaticCache"
    assert [layer.keys.shape[-2] for layer in cache.layers] == [WINDOW]


def test_an_encoder_is_known_by_its_encoding():
    assert ExportedStep("t5", BY_NAME["t5"]).encodes
    assert not ExportedStep("llama", LLAMA).encodes


@pytest.mark.parametrize("prefill", [*PREFILLS, *MORE_PREFILLS], ids=lambda prefill: prefill.name)
def test_prefills_run_at_sizes_that_were_asked_for_and_not_exported(prefill):
    ran = {(sizes.batch, sizes.held, sizes.count) for sizes in prefill.unseen}
    assert len(ran) == len(prefill.unseen) == 2
    for sizes in (prefill.example, *prefill.unseen):
        assert prefill.shortest <= sizes.count <= prefill.longest
        assert sizes.count > 1
        assert sizes.count % prefill.whole == 0 if prefill.whole else sizes.count == prefill.example.count
        assert sizes.held <= prefill.step.longest
        assert bool(sizes.held) == prefill.name.endswith("-chunk")
        assert sizes.held + sizes.count + NEXT_STEPS <= MAXIMUM
    assert prefill.example.batch not in {sizes.batch for sizes in prefill.unseen}
    # Models that loop over the tokens are exported for one number of them.
    assert (prefill.example.count in {sizes.count for sizes in prefill.unseen}) is (prefill.whole == 0)


def test_models_that_loop_over_tokens_are_the_only_ones_of_one_length():
    fixed = {prefill.step.tiny.name for prefill in (*PREFILLS, *MORE_PREFILLS) if prefill.whole == 0}
    assert fixed == {"mamba", "jamba", "minimax", "qwen3-next"}


class Made:
    def __init__(self, config, max_batch_size, dtype, batch_size=None):
        self.given = (config, max_batch_size, dtype, batch_size)


def test_a_class_of_a_models_own_is_given_what_it_takes(monkeypatch):
    monkeypatch.setitem(sys.modules, "made", SimpleNamespace(Made=Made))
    model = BY_NAME["llama"].build()
    start = own_class("made:Made")
    assert start(model, 3).given == (model.config, 3, torch.float32, None)
    assert own_class("transformers:NoSuchClass")(model, 3) is None


@pytest.mark.parametrize("name", ["mistral", "mistral-chunk", "t5"])
def test_a_prefill_starts_from_the_cache_that_it_says(name):
    prefill = next(prefill for prefill in PREFILLS if prefill.name == name)
    model = prefill.step.tiny.build()
    inputs = prefill.inputs(model, prefill.example)
    assert int(inputs[1].get_seq_length()) == prefill.example.held
    logits, cache = prefill.step.module(model)(*inputs)
    assert logits.shape[:2] == (2, prefill.example.count)
    assert int(cache.get_seq_length()) == prefill.example.held + prefill.example.count
