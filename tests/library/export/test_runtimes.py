"""Programs for other runtimes: the names of inputs and outputs, conditions that are still asked, what is not there.

The runtimes themselves are not installed here: the opt-in categories onnx and aoti run them.
"""

import dataclasses

import pytest
import torch
from torch.utils import _pytree as py_pytree

from kvconform import exportable
from kvconform.export import runtimes
from kvconform.export.cover import Programs
from kvconform.export.decoder import export_decoder
from kvconform.export.errors import ExportError
from kvconform.export.leaf_names import input_names, output_names
from kvconform.export.program import Refusal
from kvconform.export.prompts import make_prompt
from kvconform.export.runtimes import CompiledProgram, to_aoti, to_onnx
from kvconform.export.tiny import make_tiny

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=["MistralConfig", "T5Config"])
def exported(request):
    model = make_tiny(request.param)
    model.generation_config.eos_token_id = None
    return model, export_decoder(model)


def compiled(exported):
    """Programs in a runtime that asks no conditions: the graph alone."""

    def call_of(program):
        graph = program.exported.module()
        guards = getattr(graph, "_guards_fn", None)
        if guards is not None:
            guards.forward = lambda *args: None

        def call(leaves):
            _, inputs = py_pytree.tree_unflatten(leaves, program.spec)
            return py_pytree.tree_leaves(graph(**inputs))

        return call

    made = [
        CompiledProgram(one.kind, one.names, one.exported, one.leaves, call=call_of(one))
        for one in exported.programs.all
    ]
    return dataclasses.replace(exported, programs=Programs(made))


def test_names_are_those_that_users_of_onnxruntime_expect(exported):
    _, programs = exported
    parts = ("decoder.", "encoder.") if programs.plan.encoder else ("",)
    wanted = {f"{layer}.{part}{what}" for part in parts for layer in (0, 1) for what in ("key", "value")}
    with exportable():
        for program in programs.programs.all:
            given, got = input_names(program.exported), output_names(program.exported, program.kind)
            assert len(set(given)) == len(given) == len(program.leaves)
            assert len(set(got)) == len(got)
            if program.kind == "decode":
                assert given[0] == programs.plan.ids
                assert wanted <= {name.removeprefix("past_key_values.") for name in given}
            if program.kind != "encoder":
                assert got[0] == "logits"
                assert wanted <= {name.removeprefix("present.") for name in got}


def test_programs_of_a_runtime_generate_what_the_model_generates(exported):
    model, programs = exported
    prompt = make_prompt(model, 2, 6, padding=2, seed=8)
    wanted = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    found = compiled(programs).generate(prompt["input_ids"], prompt["attention_mask"], max_new_tokens=16)
    assert torch.equal(found, wanted)


def test_conditions_are_asked_though_the_runtime_does_not(exported, monkeypatch):
    """Past a window a graph without its conditions answers wrongly."""
    _, programs = exported
    one = next(compiled(programs).programs.of("decode"))
    _, inputs = one.exported.example_inputs

    def refusing(*leaves):
        raise AssertionError("planted")

    with exportable():
        one.run(inputs)
        monkeypatch.setattr(CompiledProgram, "conditions", lambda self: refusing)
        with pytest.raises(Refusal, match="planted"):
            one.run(inputs)


def test_a_runtime_gets_tensors_in_the_order_of_their_dimensions(exported):
    """AOTInductor's code reads a slice of a longer tensor as if it were whole: it gave other tokens."""
    _, programs = exported
    seen = []
    one = next(compiled(programs).programs.of("decode"))
    _, inputs = one.exported.example_inputs
    with exportable():
        run = one.call
        one.call = lambda leaves: seen.extend(leaves) or run(leaves)
        wide = {
            name: torch.stack([value, value], dim=-1)[..., 0] if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }
        assert not all(value.is_contiguous() for value in wide.values() if isinstance(value, torch.Tensor))
        one.run(wide)
    assert all(leaf.is_contiguous() for leaf in seen if isinstance(leaf, torch.Tensor))


def test_what_is_not_installed_is_told(exported, monkeypatch, tmp_path):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match="pip install onnx onnxscript onnxruntime"):
        to_onnx(exported[1], tmp_path)


def test_a_torch_without_packages_is_told(exported, monkeypatch, tmp_path):
    monkeypatch.delattr("torch._inductor.aoti_load_package", raising=False)
    with pytest.raises(ExportError, match="has no packages of AOTInductor"):
        to_aoti(exported[1], tmp_path)
