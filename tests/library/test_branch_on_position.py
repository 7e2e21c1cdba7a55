"""Where a step begins, asked of a tensor of positions while it is traced: known, assumed and asserted, or unknown."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform.patches.branch_on_position import _answered_when_traced, _KnownPositions

BATCH, HELD = torch.export.Dim("batch", min=2, max=9), torch.export.Dim("held", min=2, max=90)


class Model(torch.nn.Module):
    """Adds 1 in a decode step and the mask in a prompt; makes positions unless they are given."""

    def forward(self, x, past, attention_mask=None, cache_position=None):
        if cache_position is None:
            cache_position = torch.arange(past.shape[1], past.shape[1] + x.shape[1], device=x.device)
        if cache_position[0] > 0:
            attention_mask = None
        if cache_position[0] > 0:
            return x + 1
        return x if attention_mask is None else x * attention_mask


class Sized(torch.nn.Module):
    """What is as long as the last position says."""

    def forward(self, past):
        position = torch.arange(past.shape[1])
        return past.new_zeros(1) + torch.full((3, position[-1] + 1), 2.0).sum() + past[:, : position[-1]].sum()


class Masking(torch.nn.Module):
    """Makes its mask as long as the last position that is given says, as Zamba does."""

    def forward(self, x, attention_mask=None, cache_position=None):
        columns = torch.arange(cache_position[-1] + 1) > cache_position.reshape(-1, 1)
        made = torch.full((x.shape[1], cache_position[-1] + 1), -1.0) * columns
        return x.sum() + (made if attention_mask is None else made + attention_mask[:, None, :])


class Answered(torch.nn.Module):
    """A model, patched."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *args, **named):
        return _answered_when_traced(type(self.model).forward)(self.model, *args, **named)


def export(model, args, shapes):
    return torch.export.export(Answered(model), args, dynamic_shapes=(shapes,), strict=False).module()


def step(held, batch=2, new=1):
    return torch.ones(batch, new), torch.ones(batch, held)


@pytest.fixture(scope="module")
def decode():
    return export(Model(), step(6), ({0: BATCH}, {0: BATCH, 1: HELD}))


@given(held=st.integers(2, 90), batch=st.integers(2, 9))
@settings(max_examples=20, deadline=None)
def test_positions_that_the_model_makes_begin_at_a_length(decode, held, batch):
    given_inputs = step(held, batch)
    assert torch.equal(decode(*given_inputs), Model()(*given_inputs))


def test_a_prompt_begins_at_nothing():
    x, past = step(0, new=4)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    program = export(Model(), (x, past, mask), ({0: BATCH}, {0: BATCH}, {0: BATCH}))
    for asked in (mask, torch.ones_like(mask)):
        assert torch.equal(program(x, past, asked), Model()(x, past, asked))


def test_one_given_position_is_a_decode_step_and_the_program_asserts_it():
    x, past = step(6)
    program = export(Model(), (x, past, None, torch.tensor([6])), ({}, {}, None, {}))
    for position in (1, 6, 40):
        place = torch.tensor([position])
        assert torch.equal(program(x, past, None, place), Model()(x, past, None, place))
    with pytest.raises(RuntimeError, match="exported for one kind of step"):
        program(x, past, None, torch.tensor([0]))


def test_several_given_positions_begin_a_prompt_and_the_program_asserts_it():
    x, past = step(0, new=4)
    program = export(Model(), (x, past, None, torch.arange(4)), ({}, {}, None, {}))
    assert torch.equal(program(x, past, None, torch.arange(4)), x)
    with pytest.raises(RuntimeError, match="exported for one kind of step"):
        program(x, past, None, torch.arange(6, 10))


def test_the_last_position_is_a_size():
    program = export(Sized(), (torch.ones(2, 6),), ({1: torch.export.Dim("held", min=4, max=90)},))
    for length in (4, 7, 33):
        past = torch.ones(2, length)
        assert torch.equal(program(past), Sized()(past))


@pytest.mark.parametrize("new", [1, 3])
def test_the_last_given_position_is_the_end_of_the_mask_and_the_program_asserts_it(new):
    def inputs(batch, total):
        return torch.ones(batch, new), torch.ones(batch, total), torch.arange(total - new, total)

    program = export(Masking(), inputs(2, 6), ({0: BATCH}, {0: BATCH, 1: HELD}, {}))
    for batch, total in ((2, 6), (3, 9), (4, 5)):
        given_inputs = inputs(batch, total)
        assert torch.equal(program(*given_inputs), Masking()(*given_inputs))
    x, mask, position = inputs(2, 6)
    with pytest.raises(RuntimeError, match="the mask of this program ends with the last position"):
        program(x, mask, position - 1)


def test_positions_that_were_written_to_are_not_known():
    with _KnownPositions(None, None) as known:
        position = torch.arange(2, 6)
        assert known._of(position) == (2, 6)
        assert known._of(position.to(torch.int64)) == (2, 6)
        position += 1
        assert known._of(position) is None
        other = torch.arange(2, 6)
        other[0] = 7
        assert known._of(other) is None
        assert known._of(torch.arange(0, 6, step=2)) is None


def test_eager_calls_are_the_model_s_own():
    x, past = step(0, new=4)
    mask = torch.zeros(2, 4)
    assert torch.equal(Answered(Model())(x, past, mask), Model()(x, past, mask))
