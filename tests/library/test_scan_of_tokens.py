"""The recurrence of Mamba while it is traced: one program for prompts of any length, equal to the release's loop."""

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform import patch_functions
from kvconform.patches import Need, answer
from kvconform.patches.scan_of_tokens import PATCH

if answer(PATCH).need is not Need.NEEDED:
    pytest.skip(
        "no recurrence of this release is a function of its own, or torch cannot repeat a step", allow_module_level=True
    )

MAMBA = importlib.import_module("transformers.models.mamba.modeling_mamba")
CHANNELS, STATES, LONGEST = 3, 4, 48


class Recurrence(torch.nn.Module):
    """The function as the mixer calls it, with or without what may be left out."""

    def __init__(self, whole, state):
        super().__init__()
        self.whole, self.state = whole, state

    # By name: torch 2.9 cannot run the conditions of a program whose inputs are `*args`.
    def forward(self, x, steps, decays, writes, reads, skip, gate, bias):  # noqa: PLR0917
        more = {"D": skip, "z": gate, "delta_bias": bias, "delta_softplus": True} if self.whole else {}
        found = MAMBA.mamba_selective_scan(x, steps, decays, writes, reads, **more, return_last_state=self.state)
        return found if isinstance(found, tuple) else (found,)


def inputs(batch, length, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def made(*shape):
        return torch.randn(*shape, generator=generator)

    tokens = (batch, CHANNELS, length)
    states = (batch, STATES, length)
    x, steps, decays = made(*tokens).to(dtype), made(*tokens).abs().to(dtype), -made(CHANNELS, STATES).abs()
    writes, reads, gate = made(*states).to(dtype), made(*states).to(dtype), made(*tokens).to(dtype)
    return x, steps, decays, writes, reads, made(CHANNELS), gate, made(CHANNELS)


def exported(module, given_inputs):
    batch, length = torch.export.Dim("batch", min=2, max=9), torch.export.Dim("length", min=2, max=LONGEST)
    both = {0: batch, 2: length}
    shapes = (both, both, {}, both, both, {}, both, {})
    with patch_functions(PATCH.name), torch.no_grad():
        return torch.export.export(module, given_inputs, dynamic_shapes=shapes, strict=False).module()


@pytest.fixture(scope="module", params=[(True, True), (False, False)], ids=["whole", "bare"])
def program(request):
    module = Recurrence(*request.param)
    return module, exported(module, inputs(2, 6))


@given(batch=st.integers(2, 9), length=st.integers(2, LONGEST), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_one_program_serves_every_length(program, batch, length, seed):
    module, traced = program
    given_inputs = inputs(batch, length, seed)
    for got, expected in zip(traced(*given_inputs), module(*given_inputs), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_half_precision_keeps_its_dtypes():
    module, given_inputs = Recurrence(whole=True, state=True), inputs(3, 5, dtype=torch.bfloat16)
    traced = exported(module, inputs(2, 6, dtype=torch.bfloat16))
    for got, expected in zip(traced(*given_inputs), module(*given_inputs), strict=True):
        torch.testing.assert_close(got, expected, atol=2e-2, rtol=2e-2)


def test_eager_calls_are_the_release_s_own():
    module, given_inputs = Recurrence(whole=True, state=True), inputs(2, 5)
    expected = module(*given_inputs)
    with patch_functions(PATCH.name):
        for got, wanted in zip(module(*given_inputs), expected, strict=True):
            assert torch.equal(got, wanted)


def test_nothing_is_left_in_the_models():
    before = MAMBA.mamba_selective_scan
    with patch_functions(PATCH.name):
        assert MAMBA.mamba_selective_scan is not before
    assert MAMBA.mamba_selective_scan is before
