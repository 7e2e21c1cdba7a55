"""Positions whose frequencies depend on a length: one program for all lengths, and nothing left on the model."""

import copy
import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform import exportable
from kvconform.patches import Need, answer, rope_of_a_length

LIMIT = 8
BATCH, LENGTH = torch.export.Dim("batch", min=2, max=9), torch.export.Dim("length", min=2, max=64)

pytestmark = [
    pytest.mark.skipif(
        answer(rope_of_a_length.PATCH).need is not Need.NEEDED, reason="the positions of this release ask no length"
    ),
    pytest.mark.filterwarnings("ignore"),
]


def embedding(kind):
    """The rotary embedding of a tiny Llama, scaled past eight tokens."""
    transformers = importlib.import_module("transformers")
    module = importlib.import_module("transformers.models.llama.modeling_llama")
    factors = {"short_factor": [1.0, 1.1], "long_factor": [2.0, 3.0], "factor": 4.0}
    more = {"factor": 2.0} if kind == "dynamic" else {**factors, "original_max_position_embeddings": LIMIT}
    config = transformers.LlamaConfig(
        hidden_size=8,
        num_attention_heads=2,
        max_position_embeddings=LIMIT if kind == "dynamic" else 4 * LIMIT,
        rope_scaling={"rope_type": kind, "type": kind, "rope_theta": 10000.0, **more},
    )
    config.original_max_position_embeddings = LIMIT
    return module.LlamaRotaryEmbedding(config)


class Positions(torch.nn.Module):
    def __init__(self, rotary):
        super().__init__()
        self.rotary = rotary

    def forward(self, x, position_ids):
        return self.rotary(x, position_ids)


def given_for(batch, length):
    return torch.zeros(batch, length, 8), torch.arange(length)[None].repeat(batch, 1)


@pytest.fixture(scope="module", params=["dynamic", "longrope"])
def exported(request):
    """A program, the module that it was made of, and one that nothing was exported from."""
    module = Positions(embedding(request.param))
    fresh = copy.deepcopy(module)
    shapes = {0: BATCH, 1: LENGTH}
    with exportable():
        program = torch.export.export(module, given_for(2, 6), dynamic_shapes=(shapes, shapes), strict=False)
    return program.module(), module, fresh


@given(batch=st.integers(2, 9), length=st.integers(2, 64))
@settings(max_examples=40, deadline=None)
def test_one_program_serves_all_lengths(exported, batch, length):
    program, _, fresh = exported
    wanted = copy.deepcopy(fresh)(*given_for(batch, length))
    for got, expected in zip(program(*given_for(batch, length)), wanted, strict=True):
        assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("length", [6, LIMIT, LIMIT + 1, 30])
def test_the_model_answers_as_before(exported, length):
    _, module, fresh = exported
    for got, expected in zip(
        copy.deepcopy(module)(*given_for(3, length)), copy.deepcopy(fresh)(*given_for(3, length)), strict=True
    ):
        assert torch.equal(got, expected)
    assert vars(module.rotary).keys() == vars(fresh.rotary).keys()
    assert all(type(one) is torch.Tensor for one in module.rotary.buffers())


def test_other_types_are_left_to_the_model():
    module = Positions(embedding("dynamic"))
    module.rotary.rope_type = "default"
    with exportable():
        program = torch.export.export(module, given_for(2, 6), strict=False).module()
    assert all(map(torch.equal, program(*given_for(2, 6)), module(*given_for(2, 6))))


def test_dynamo_follows_the_model_s_own_code():
    module = Positions(embedding("dynamic"))
    module.rotary.rope_type = "default"
    with exportable():
        compiled = torch.compile(module, backend="eager", fullgraph=True)
        assert all(map(torch.equal, compiled(*given_for(2, 6)), module(*given_for(2, 6))))
