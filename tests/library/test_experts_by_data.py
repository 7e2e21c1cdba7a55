"""A loop over the experts that some token chose, in the forms in which models write it: a program is right for any."""

import types
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform.patches import experts_by_data

WIDTH, CHOICES, ROUTED, ZERO = 4, 2, 3, 2


def number_of(row, form):
    if form == "index":
        return row[0]
    return row.item() if form == "item" else int(row.item())


class Loop(torch.nn.Module):
    """Experts as Mixtral and LongCat Flash have them; the last `ZERO` give a token back as it is."""

    def __init__(self, order="choices first", rows="index", *, named=False):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weights = torch.nn.Parameter(torch.randn(ROUTED, WIDTH, WIDTH, generator=generator))
        self.order, self.rows, self.options = order, rows, {"as_tuple": False} if named else {}

    def forward(self, hidden, chosen, weights):
        found = torch.zeros_like(hidden)
        order = (2, 1, 0) if self.order == "choices first" else (2, 0, 1)
        mask = torch.nn.functional.one_hot(chosen, num_classes=ROUTED + ZERO).permute(*order)
        for row in torch.greater(mask.sum(dim=(-1, -2)), 0).nonzero(**self.options):
            number = number_of(row, self.rows)
            if order == (2, 1, 0):
                choice, token = torch.where(mask[number])
            else:
                token, choice = torch.where(mask[number])
            if token.numel() == 0:
                continue
            state = hidden[token]
            state = state if number >= ROUTED else torch.nn.functional.linear(state, self.weights[number])
            found.index_add_(0, token, state * weights[token, choice, None])
        return found


def patched(module):
    """The module, its class replaced as one in a model's own module is."""
    cls = type("Loop", (Loop,), {"forward": Loop.forward, "__module__": "transformers.models.own.modeling_own"})
    where = types.ModuleType(cls.__module__)
    where.Loop = cls
    (replacement,) = experts_by_data.PATCH.of_module(where)
    cls.forward = replacement.make(cls.forward)
    module.__class__ = cls
    return module


def drawn(tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(tokens, ROUTED + ZERO, generator=generator)
    weights, chosen = scores.topk(CHOICES, dim=-1)
    return torch.randn(tokens, WIDTH, generator=generator), chosen, weights


FORMS = [*product(("choices first", "tokens first"), ("index", "item", "int"), (False, True))]


@pytest.mark.parametrize(("order", "rows", "named"), FORMS)
def test_a_program_is_right_whatever_was_chosen(order, rows, named):
    module = Loop(order, rows, named=named)
    tokens = torch.export.Dim("tokens", min=2, max=100)
    with torch.no_grad():
        program = torch.export.export(
            patched(Loop(order, rows, named=named)), drawn(5, 0), dynamic_shapes=({0: tokens},) * 3, strict=False
        ).module()

    @settings(deadline=None, max_examples=20)
    @given(st.integers(2, 40), st.integers(0, 10_000))
    def equals_eager(count, seed):
        with torch.no_grad():
            torch.testing.assert_close(program(*drawn(count, seed)), module(*drawn(count, seed)))

    equals_eager()


@given(st.integers(1, 9), st.integers(0, 99))
def test_eager_mode_runs_the_loop_itself(tokens, seed):
    with torch.no_grad():
        assert torch.equal(patched(Loop())(*drawn(tokens, seed)), Loop()(*drawn(tokens, seed)))
