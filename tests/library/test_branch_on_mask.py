"""Whether a mask holds nothing but ones, asked while a model is traced: answered no, and no other question is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform.patches.branch_on_mask import _answered_when_traced, _TakenForPadded

BATCH, LENGTH = torch.export.Dim("batch", min=2, max=9), torch.export.Dim("length", min=2, max=64)


class Model(torch.nn.Module):
    """Hides padding by a product, unless the mask says that there is none."""

    def forward(self, x, attention_mask=None):
        if attention_mask is not None and not torch.all(attention_mask == 1):
            return x * attention_mask
        return x


class Other(torch.nn.Module):
    """Asks something else of its mask."""

    def forward(self, x, attention_mask=None):
        return x if torch.all(attention_mask == 0) else x * attention_mask


class Answered(torch.nn.Module):
    """A model, patched."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *args, **named):
        return _answered_when_traced(type(self.model).forward)(self.model, *args, **named)


def export(model):
    shapes = {0: BATCH, 1: LENGTH}
    given_inputs = (torch.ones(2, 6), torch.ones(2, 6, dtype=torch.long))
    return torch.export.export(Answered(model), given_inputs, dynamic_shapes=((shapes, shapes),), strict=False).module()


@pytest.fixture(scope="module")
def program():
    return export(Model())


@given(batch=st.integers(2, 9), length=st.integers(2, 64), seed=st.integers(0, 9), padded=st.booleans())
@settings(max_examples=30, deadline=None)
def test_one_program_serves_masks_of_ones_and_others(program, batch, length, seed, padded):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, generator=generator)
    mask = torch.randint(0, 2, (batch, length), generator=generator) if padded else torch.ones(batch, length).long()
    assert torch.equal(program(x, mask), Model()(x, mask))


def test_another_question_is_not_answered():
    with pytest.raises(Exception, match="data-dependent"):
        export(Other())


def test_only_the_mask_that_was_given_is_taken_for_padded():
    mask, other = torch.ones(2, 3), torch.ones(2, 3)
    with _TakenForPadded(mask):
        assert not torch.all(mask == 1)
        assert not (mask == 1).all()
        assert torch.all(other == 1)
        assert torch.all(mask > 0)
        assert torch.all(mask == 1.0)
    assert torch.all(mask == 1)


def test_eager_calls_are_the_model_s_own():
    x, ones = torch.randn(2, 4), torch.ones(2, 4)
    assert Answered(Model())(x, ones) is x
    assert Answered(Model())(x) is x
