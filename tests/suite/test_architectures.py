"""The questions to every architecture: they pass what is right, find planted faults, and tell what cannot be made."""

import pytest

pytest.importorskip("transformers", reason="the suite is about transformers")

import torch
import torch.utils._pytree as pytree

from kvconform import exportable
from kvconform.checks.errors import ExpectationError
from kvconform.checks.needs import NotApplicableError
from kvconform.export.architectures import Architecture, architectures
from kvconform_conformance.examples import architectures as asked

pytestmark = pytest.mark.filterwarnings("ignore")
BY_NAME = {one.name: one for one in architectures()}


@pytest.fixture
def llama():
    return asked.Asked(BY_NAME["LlamaForCausalLM"])


@pytest.mark.parametrize("name", ["MistralForCausalLM", "BartForConditionalGeneration"])
def test_what_is_right_passes(name):
    one = asked.Asked(BY_NAME[name])
    one.require()
    with exportable():
        asked.expect_decodes_on(one.made)
        asked.expect_exports(one.made, "decode")
        asked.expect_exports(one.made, "prefill")


def test_a_cache_that_loses_tokens_is_found(llama, monkeypatch):
    def losing(cache, where=""):
        leaves, spec = pytree.tree_flatten(cache)
        return pytree.tree_unflatten([torch.zeros_like(leaf) for leaf in leaves], spec)

    monkeypatch.setattr(asked.trees, "round_trip", losing)
    with exportable(), pytest.raises(ExpectationError, match="logits differ by"):
        asked.expect_decodes_on(llama.made)


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_a_program_that_answers_differently_is_found(llama, monkeypatch, kind):
    export = asked._exported

    def with_another_weight(one, kind):
        program = export(one, kind)
        with torch.no_grad():
            program.exported.state_dict["model.model.norm.weight"].mul_(1.01)
        return program

    monkeypatch.setattr(asked, "_exported", with_another_weight)
    asked._KEPT.clear()
    found = llama.made
    for watched in (found.exported, *found.unseen, found.past):
        assert watched.calls
    with exportable(), pytest.raises(ExpectationError, match=f"{kind}.*logits differ by"):
        asked.expect_exports(found, kind)
    asked._KEPT.clear()


def test_a_program_of_one_size_is_found(llama, monkeypatch):
    monkeypatch.setattr(asked, "moving", lambda seen: {})
    with exportable(), pytest.raises(ExpectationError, match="the program refuses"):
        asked.expect_exports(llama.made, "prefill")


def test_what_cannot_be_made_says_why():
    class Refusing(Architecture):
        def config_class(self):
            return BY_NAME["LlamaForCausalLM"].config_class()

        def model_class(self):
            raise_error = type("NoModel", (), {"__init__": lambda self, config: 1 / 0})
            raise_error.config_class = self.config_class()
            return raise_error

    one = asked.Asked(Refusing("NoModel", "llama", "MODEL_FOR_CAUSAL_LM_MAPPING"))
    with pytest.raises(NotApplicableError, match=r"NoModel cannot be made .* ZeroDivisionError"):
        one.require()


def test_all_are_those_of_the_release():
    names = [one.name for one in asked.all_architectures()]
    assert len(names) == len(set(names)) > 100
    assert {"LlamaForCausalLM", "BartForConditionalGeneration"} <= set(names)
