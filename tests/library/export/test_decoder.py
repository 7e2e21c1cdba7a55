"""One call from a model to programs: the tokens, what is refused, and what a planted fault does."""

import copy
import json
import os

import pytest
import torch

from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot
from kvconform.export import bundle, validate
from kvconform.export.decoder import export_decoder, load_decoder
from kvconform.export.errors import ExportError, NoProgramError, WatchError
from kvconform.export.prompts import make_prompt
from kvconform.export.saved import load_inputs
from kvconform.export.steps import compare_steps
from kvconform.export.tiny import make_tiny
from kvconform.patches import applied

pytestmark = pytest.mark.filterwarnings("ignore")


def generated(model, prompt, **more):
    return model.generate(**prompt, do_sample=False, **more)


@pytest.mark.parametrize(("batch", "length", "padding"), [(1, 2, 0), (2, 5, 3), (4, 12, 0)])
def test_tokens_are_those_of_generate(model, exported, batch, length, padding):
    prompt = make_prompt(model, batch, length, padding=padding, seed=length)
    wanted = generated(model, prompt, max_new_tokens=24)
    found = exported.generate(prompt["input_ids"], prompt["attention_mask"], max_new_tokens=24)
    assert torch.equal(found, wanted)


def test_torch_is_asked_once_for_the_structure_of_a_program(exported, monkeypatch):
    """It makes a class each time, which shows in the time of a compiled step."""
    asked = []
    original = torch.export.ExportedProgram.call_spec
    counted = property(lambda self: asked.append(self) or original.fget(self))
    monkeypatch.setattr(torch.export.ExportedProgram, "call_spec", counted)
    program = copy.copy(next(exported.programs.of("decode")))
    program._specs = None
    assert [program.spec == original.fget(program.exported).in_spec for _ in range(3)] == [True] * 3
    assert program.result == original.fget(program.exported).out_spec
    assert len(asked) == 1


def test_rows_end_where_those_of_generate_end(model, exported):
    prompt = make_prompt(model, 3, 6, padding=1, seed=5)
    free = generated(model, prompt, max_new_tokens=12, eos_token_id=None)
    # A token that the first row gives after a few steps, and the others perhaps later, or never.
    end = int(free[0, 9])
    ended = copy.copy(exported)
    ended.settings = type(exported.settings)((end,), 0)
    wanted = generated(model, prompt, max_new_tokens=12, eos_token_id=end, pad_token_id=0)
    assert (wanted != free[:, : wanted.shape[1]]).any() or wanted.shape != free.shape
    assert torch.equal(ended.generate(prompt["input_ids"], prompt["attention_mask"], max_new_tokens=12), wanted)


def test_padding_is_found_where_no_mask_is_given(model, exported):
    prompt = make_prompt(model, 2, 6, padding=2, seed=3)
    wanted = generated(model, {"input_ids": prompt["input_ids"]}, max_new_tokens=8)
    assert torch.equal(exported.generate(prompt["input_ids"], max_new_tokens=8), wanted)


def test_each_token_is_told_as_it_comes(model, exported):
    seen = []
    prompt = make_prompt(model, 2, 4, seed=1)
    tokens = exported.generate(prompt["input_ids"], max_new_tokens=5, on_token=seen.append)
    assert torch.equal(torch.stack(seen, dim=1), tokens[:, 4:])


def test_exporting_and_generating_leave_no_trace(model, exported):
    before = registry_snapshot()
    prompt = make_prompt(model, 2, 4, seed=1)
    exported.generate(prompt["input_ids"], max_new_tokens=2)
    expect_registry_unchanged(before)
    assert applied.in_force() == ()
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert "_get_logits_processor" not in vars(model)


def planted(exported):
    """The same programs, with one weight of the decode step changed."""
    other = copy.copy(exported)
    other.programs = copy.deepcopy(exported.programs)
    program = next(other.programs.of("decode"))
    program._module = None
    name, weight = next((n, w) for n, w in program.exported.state_dict.items() if n.endswith("o_proj.weight"))
    program.exported.state_dict[name] = torch.nn.Parameter(weight + 0.5, requires_grad=False)
    return other


def test_a_planted_difference_is_found_at_its_step(model, exported):
    steps = list(compare_steps(model, planted(exported), make_prompt(model, 2, 6, padding=1), 3))
    assert [step.fine for step in steps] == [True, False, False, False]
    assert steps[1].step.startswith("decode step 1, batch 2")
    assert steps[1].logits > steps[1].tolerance


def test_validate_ends_with_1_for_a_planted_difference(exported, monkeypatch, capsys):
    monkeypatch.setattr(validate, "export_decoder", lambda model, **_: planted(exported))
    assert validate.main(["LlamaConfig", "--tokens", "3"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("LlamaForCausalLM: DIFFERS. decode step 1, batch 2, 7 tokens of prompt: logits differ by ")
    assert validate.main(["LlamaConfig", "--tokens", "3", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["fine"] is False
    assert [step["fine"] for step in document["steps"][:2]] == [True, False]


def test_validate_ends_with_0_for_a_right_one(exported, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(validate, "export_decoder", lambda model, **_: exported)
    assert validate.main(["LlamaConfig", "--tokens", "2", "--save", str(tmp_path / "bundle")]) == 0
    assert "equal at every step" in capsys.readouterr().out
    load_decoder(tmp_path / "bundle")


@pytest.mark.parametrize("name", ["NoSuchConfig", "BertTokenizer"])
def test_validate_ends_with_2_for_wrong_input(name, capsys):
    assert validate.main([name]) == 2
    assert f"no config class {name!r}" in capsys.readouterr().err


def test_validate_takes_a_folder(model, exported, monkeypatch, capsys, tmp_path):
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(validate, "export_decoder", lambda loaded, **_: export_decoder(loaded))
    assert validate.main([str(tmp_path), "--tokens", "2"]) == 0
    assert validate.main([str(tmp_path / "..")]) == 2


class Refusing(torch.nn.Module):
    """Stands in a model for what torch.export refuses."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, hidden):
        if torch.compiler.is_compiling() or type(hidden) is not torch.Tensor or _is_fake(hidden):
            raise RuntimeError("refused while it is traced")
        return self.inner(hidden)


def _is_fake(tensor):
    return isinstance(tensor, torch._subclasses.FakeTensor)


def test_a_failing_export_leaves_its_inputs_and_their_replay(tmp_path, monkeypatch, capsys):
    broken = make_tiny("LlamaConfig")
    broken.lm_head = Refusing(broken.lm_head)
    with pytest.raises(ExportError, match="refused while it is traced") as caught:
        export_decoder(broken, failures=tmp_path)
    file = tmp_path / "prefill.safetensors"
    assert f"python -m kvconform validate LlamaConfig --inputs {file}" in str(caught.value)
    saved = load_inputs(file)
    assert saved["kind"] == "prefill"
    assert saved["inputs"]["input_ids"].shape == (2, 6)
    # The command is good for the model as it is, which exports.
    assert validate.main(["LlamaConfig", "--inputs", str(file)]) == 0
    assert "the prefill step exports" in capsys.readouterr().out
    monkeypatch.setattr(validate, "make_tiny", lambda name: broken)
    assert validate.main(["LlamaConfig", "--inputs", str(file)]) == 1


def test_what_no_program_takes_is_refused_with_the_reasons(exported):
    with pytest.raises(NoProgramError, match=r"no (prefill|decode) program takes these inputs"):
        exported.generate(torch.ones((2, 1), dtype=torch.int64))


def test_prompts_of_one_token_work_where_they_are_asked_for(model, exported):
    one = torch.tensor([[5]])
    with pytest.raises(NoProgramError, match=r"export_decoder\(model, lengths="):
        exported.generate(one, max_new_tokens=3)
    wanted = generated(model, {"input_ids": one}, max_new_tokens=12)
    assert torch.equal(export_decoder(model, lengths=[1, 6]).generate(one, max_new_tokens=12), wanted)


def test_a_model_that_changes_logits_is_told():
    model = make_tiny("LlamaConfig")
    model.generation_config.repetition_penalty = 2.0
    with pytest.warns(UserWarning, match="RepetitionPenaltyLogitsProcessor"):
        export_decoder(model)


def test_a_generate_that_fails_is_told_before_anything_is_exported(model):
    with pytest.raises(WatchError, match=r"export_decoder\(model, prompts=\[\{\.\.\.\}, \{\.\.\.\}\]\)"):
        export_decoder(model, prompts=[{"input_ids": torch.full((2, 3), 10_000)}] * 2)


def test_nothing_is_left_in_the_environment():
    assert bundle._FORCE not in os.environ
