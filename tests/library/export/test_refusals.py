"""What the programs would answer otherwise than the model is refused, or told, before it is answered."""

import dataclasses
import warnings

import pytest
import torch
import transformers
from packaging.version import Version

from kvconform.export import replay, validate
from kvconform.export.cover import Cover
from kvconform.export.decoder import GreedyWarning, export_decoder
from kvconform.export.errors import ExportError, NoProgramError, SavedInputsError, WatchError
from kvconform.export.prompts import make_prompt, switch
from kvconform.export.saved import save_inputs
from kvconform.export.steps import compare_steps
from kvconform.export.tiny import make_tiny
from kvconform.export.watch import Call, Watched

pytestmark = pytest.mark.filterwarnings("ignore")


def padded(model, padding=2):
    return make_prompt(model, 2, 6, padding=padding, seed=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, mask: (ids, mask[:, :-1]), "the mask has shape"),
        (lambda ids, mask: (ids, torch.cat([mask, mask], dim=1)), "the mask has shape"),
        (lambda ids, mask: (ids.flip(1), mask.flip(1)), "padded on the right"),
        (lambda ids, mask: (ids[0], mask[0]), "add the batch"),
    ],
    ids=["short", "long", "right", "no-batch"],
)
def test_a_prompt_that_would_be_answered_otherwise_is_refused(model, exported, change, message):
    prompt = padded(model)
    with pytest.raises(NoProgramError, match=message):
        exported.generate(*change(prompt["input_ids"], prompt["attention_mask"]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
def test_masks_and_tokens_of_other_types_are_taken(model, exported, dtype):
    prompt = padded(model)
    wanted = model.generate(**prompt, do_sample=False, max_new_tokens=6)
    ids, mask = prompt["input_ids"], prompt["attention_mask"].to(dtype)
    assert torch.equal(exported.generate(ids.int(), mask, max_new_tokens=6), wanted)
    assert torch.equal(exported.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6), wanted)


@pytest.mark.parametrize(
    "prompt", [{}, {"input_features": torch.ones(1, 2)}, {"inputs": torch.ones(1, 2).long(), "x": 1}]
)
def test_inputs_by_another_name_are_refused(exported, prompt):
    with pytest.raises(NoProgramError, match="takes input_ids and attention_mask"):
        exported.generate(**prompt)


def test_padding_that_no_program_knows_is_refused(model):
    prompts = [{"input_ids": make_prompt(model, batch, length)["input_ids"]} for batch, length in ((2, 6), (3, 9))]
    exported = export_decoder(model, prompts=prompts)
    prompt = padded(model)
    wanted = model.generate(**prompt, do_sample=False, max_new_tokens=6)
    if exported.plan.takes_mask:
        assert torch.equal(exported.generate(**prompt, max_new_tokens=6), wanted)
    else:
        with pytest.raises(NoProgramError, match="know no mask"):
            exported.generate(**prompt, max_new_tokens=6)
    plain = padded(model, padding=0)
    wanted = model.generate(**plain, do_sample=False, max_new_tokens=6)
    assert torch.equal(exported.generate(**plain, max_new_tokens=6), wanted)
    blind = dataclasses.replace(exported.plan.prefill, rules={"input_ids": "ids"})
    exported.plan = dataclasses.replace(exported.plan, padded=False, prefill=blind)
    with pytest.raises(NoProgramError, match="know no mask"):
        exported.generate(**prompt)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lengths": []}, ValueError, "lengths are a list"),
        ({"lengths": 8}, ValueError, "lengths are a list"),
        ({"lengths": [-1]}, ValueError, "lengths are a list"),
        ({"prompts": [{}]}, ValueError, "two prompts or more"),
        ({"prompts": [{}, {}], "lengths": [8]}, ValueError, "lengths of their own"),
    ],
    ids=["no-length", "number", "negative", "one-prompt", "both"],
)
def test_arguments_that_say_nothing_are_refused(model, arguments, error, message):
    with pytest.raises(error, match=message):
        export_decoder(model, **arguments)


def test_what_does_not_generate_is_refused(model):
    for other in (model.model, torch.nn.Linear(2, 2)):
        with pytest.raises(WatchError, match="does not generate"):
            export_decoder(other)


def test_a_model_in_training_is_refused():
    with pytest.raises(WatchError, match=r"model\.eval\(\)"):
        export_decoder(make_tiny("LlamaConfig").train())


def test_a_cache_that_is_full_from_the_start_is_refused():
    model = make_tiny("LlamaConfig")
    model.generation_config.cache_implementation = "static"
    with pytest.raises(ExportError, match="Choose a cache that grows"):
        export_decoder(model)


def test_another_search_is_told():
    model = make_tiny("LlamaConfig")
    model.generation_config.num_beams = 3
    with pytest.warns(GreedyWarning, match="num_beams=3"):
        export_decoder(model)


def test_validate_tells_of_another_search(monkeypatch, capsys):
    model = make_tiny("LlamaConfig")
    model.generation_config.num_beams = 3
    monkeypatch.setattr(validate, "make_tiny", lambda _: model)
    assert validate.main(["LlamaConfig", "--tokens", "2"]) == 0
    assert "note: generate() of this LlamaForCausalLM does more than greedy search" in capsys.readouterr().err


def test_validate_refuses_a_folder_before_it_exports(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(validate, "make_tiny", lambda _: pytest.fail("nothing should be made"))
    (tmp_path / "mine").write_text("mine")
    assert validate.main(["LlamaConfig", "--save", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_validate_ends_with_2_for_a_damaged_folder(model, tmp_path, capsys, name):
    model.save_pretrained(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert validate.main([str(tmp_path)]) == 2
    assert "holds no model" in capsys.readouterr().err


def test_inputs_of_an_unknown_step_are_refused(model, tmp_path):
    path = save_inputs({"kind": "tomorrow", "inputs": {}}, tmp_path / "inputs.safetensors")
    with pytest.raises(SavedInputsError, match="no inputs of a step"):
        replay.replay(model, path)


def test_a_call_that_begins_anew_for_no_known_reason_is_refused(model, exported):
    """A step that no program can answer is never left out of the comparison without a word."""
    sizes = ((2, 6), (2, 1), (2, 8))
    calls = tuple(Call({"input_ids": torch.ones(size, dtype=torch.long)}, None) for size in sizes)
    watched = Watched({"input_ids": calls[0].inputs["input_ids"]}, None, calls, torch.ones(2, 9))
    with pytest.raises(WatchError, match="computes all tokens again at step 2"):
        Cover(model, exported.plan)._steps(watched)
    known = dataclasses.replace(exported.plan, begins_anew=7)
    assert Cover(model, known)._steps(watched) == [1]


def test_longrope_is_computed_anew_where_generate_does():
    model = longrope()
    if model is None:
        pytest.skip("Phi-3 of this release takes no such scaling")
    assert switch(model) == 16
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exported = export_decoder(model)
    faulty = any(issubclass(one.category, GreedyWarning) for one in caught)
    assert faulty is (Version(transformers.__version__).major < 5)
    for length, padding in ((6, 0), (12, 3), (16, 1), (20, 0)):
        prompt = make_prompt(model, 2, length, padding=padding, seed=length)
        wanted = model.generate(**prompt, do_sample=False, max_new_tokens=14)
        found = exported.generate(**prompt, max_new_tokens=14)
        compared = 17 if faulty and length <= 16 else None
        if not faulty:
            assert all(step.fine for step in compare_steps(model, exported, prompt, 12)), length
        assert torch.equal(found[:, :compared], wanted[:, :compared]), length


def longrope():
    """A tiny Phi-3 with other frequencies past 16 tokens; None where the release has none."""
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    scaling = {
        "type": "longrope",
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 3.0, 4.0, 5.0],
    }
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    more = {"vocab_size": 97, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3}
    for extra in ({}, {"rope_theta"}):
        try:
            rope = {
                name: value
                for name, value in scaling.items()
                if name not in extra | ({"rope_type"} if extra else set())
            }
            config = Phi3Config(**sizes, **ends, **more, original_max_position_embeddings=16, rope_scaling=rope)
            return Phi3ForCausalLM(config).eval()
        except (KeyError, ValueError, TypeError):
            continue
    return None
