"""What a plan keeps of the calls that it was learnt from."""

import dataclasses

import pytest
import torch

from kvconform.export.errors import WatchError
from kvconform.export.modules import StepModule
from kvconform.export.plan import Plan, learn, step_inputs
from kvconform.export.prompts import make_prompt
from kvconform.export.tiny import make_tiny
from kvconform.export.watch import watch

pytestmark = pytest.mark.filterwarnings("ignore")


def learned(config):
    model = make_tiny(config)
    watched = [watch(model, make_prompt(model, batch, length)) for batch, length in ((2, 4), (3, 5))]
    return model, watched, learn(watched)


@pytest.mark.parametrize("config", ["T5Config", "SwitchTransformersConfig"])
def test_a_decoder_is_given_what_its_own_encoder_returns(config):
    model, (watched, _), plan = learned(config)
    call = watched.calls[1]
    assert type(plan.encoded_as(torch.zeros(1, 1, 1))) is type(call.inputs["encoder_outputs"])
    with torch.no_grad():
        logits, _ = StepModule(model, plan, plan.decode)(**step_inputs(plan, watched, 1))
    assert torch.allclose(logits, call.outputs.logits, atol=1e-5)


def test_a_manifest_of_before_has_the_output_that_most_encoders_return():
    _, _, plan = learned("LlamaConfig")
    assert plan.encoded == Plan.encoded
    assert type(plan.encoded_as(torch.zeros(1, 1, 1))).__name__ == "BaseModelOutput"


@pytest.mark.parametrize("more", [1, 3])
def test_a_generation_that_begins_with_fewer_tokens_than_its_prompt_is_told(more):
    """Musicgen cuts its prompt back; no rule says what its other inputs would be for the tokens that are left out."""
    _, seen, _ = learned("LlamaConfig")
    cut = []
    for watched in seen:
        prompt = {name: torch.nn.functional.pad(value, (more, 0), value=1) for name, value in watched.prompt.items()}
        cut.append(dataclasses.replace(watched, prompt=prompt))
    with pytest.raises(WatchError, match=r"begins with 4 of the \d tokens of a prompt.*torch.export.export"):
        learn(cut)
