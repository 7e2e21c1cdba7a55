"""A prompt and the width of a convolution: one program for prompts on both sides of it, equal to eager."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform import patch_functions, probes
from kvconform.patches import Need, answer
from kvconform.patches.convolution_states import PATCH

if answer(PATCH).need is not Need.NEEDED:
    pytest.skip("no cache of this release compares a prompt with a convolution", allow_module_level=True)

LAYER = probes.cache_class("LinearAttentionLayer")
WIDTH, LONGEST = 4, 32


class Convolution(torch.nn.Module):
    """A causal convolution over what a new layer gives back, and what the layer keeps."""

    def forward(self, x):
        layer = LAYER()
        full = layer.update_conv_state(x, conv_kernel_size=WIDTH)
        found = torch.nn.functional.conv1d(full, x.new_ones(1, 1, WIDTH), padding=WIDTH - 1)
        found = found[:, :, : full.shape[-1]][:, :, -x.shape[-1] :]
        assert layer.has_previous_state[0]
        return found, layer.conv_states[0]


@pytest.fixture(scope="module", params=[WIDTH - 1, WIDTH, WIDTH + 3])
def program(request):
    length = torch.export.Dim("length", min=2, max=LONGEST)
    with patch_functions(PATCH.name), torch.no_grad():
        exported = torch.export.export(
            Convolution(), (torch.randn(2, 1, request.param),), dynamic_shapes=({2: length},), strict=False
        )
    return exported.module()


@given(length=st.integers(2, LONGEST), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_one_program_serves_every_length(program, length, seed):
    x = torch.randn(2, 1, length, generator=torch.Generator().manual_seed(seed))
    for got, expected in zip(program(x), Convolution()(x), strict=True):
        assert torch.equal(got, expected)


def test_eager_calls_are_the_release_s_own():
    x = torch.randn(2, 1, 2)
    with patch_functions(PATCH.name):
        # The release gives the inputs with the zeros before them.
        assert LAYER().update_conv_state(x, conv_kernel_size=WIDTH).shape[-1] == WIDTH


def test_a_layer_that_records_its_past_keeps_all_of_it():
    def kept(x):
        layer = LAYER()
        layer.record_past = True
        layer.update_conv_state(x, conv_kernel_size=WIDTH)
        return layer.conv_states[0]

    class Records(torch.nn.Module):
        def forward(self, x):
            return kept(x)

    length = torch.export.Dim("length", min=2, max=LONGEST)
    with patch_functions(PATCH.name), torch.no_grad():
        program = torch.export.export(
            Records(), (torch.randn(2, 1, 6),), dynamic_shapes=({2: length},), strict=False
        ).module()
    for count in (2, 3, 9):
        x = torch.randn(2, 1, count)
        assert torch.equal(program(x), kept(x))
