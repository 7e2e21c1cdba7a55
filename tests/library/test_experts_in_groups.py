"""The grouped product of experts while it is traced: each row is multiplied with the weights of its own expert."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform.patches import Need, answer, experts_in_groups
from kvconform.patches.experts_in_groups import _row_by_row


def of_each_group(input, weight, bias=None, offs=None, is_transposed=False):  # noqa: A002 - transformers' name
    """A product for each expert, in a loop; rows that belong to none are zero."""
    width = weight.shape[-1] if is_transposed else weight.shape[-2]
    found = input.new_zeros(input.shape[0], width)
    start = 0
    for own, end in zip(weight, offs.tolist(), strict=True):
        found[start:end] = input[start:end] @ (own if is_transposed else own.transpose(-2, -1))
        start = end
    return found if bias is None else found + bias


class Experts(torch.nn.Module):
    def __init__(self, weights, transposed):
        super().__init__()
        self.weights, self.transposed = torch.nn.Parameter(weights), transposed

    def forward(self, rows, offs, bias=None):
        return _row_by_row(of_each_group)(rows, self.weights, bias, offs, is_transposed=self.transposed)


def drawn(sizes, transposed, width=3, out=5):
    generator = torch.Generator().manual_seed(sum(sizes) + len(sizes))
    shape = (len(sizes), width, out) if transposed else (len(sizes), out, width)
    ends = torch.tensor(sizes).cumsum(0).to(torch.int32)
    rows = torch.randn(sum(sizes), width, generator=generator)
    return rows, torch.randn(shape, generator=generator), ends


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 1), st.booleans())
def test_a_program_gives_each_row_its_own_expert_at_any_sizes(sizes, transposed):
    rows, weights, ends = drawn([2] * len(sizes), transposed)
    bias = torch.randn(rows.shape[0], 5)
    shapes = {"rows": {0: torch.export.Dim.AUTO}, "offs": None, "bias": {0: torch.export.Dim.AUTO}}
    with torch.no_grad():
        program = torch.export.export(
            Experts(weights, transposed), (rows, ends, bias), dynamic_shapes=shapes, strict=False
        )
        rows, _, ends = drawn(sizes, transposed)
        bias = torch.randn(rows.shape[0], 5)
        found = program.module()(rows, ends, bias)
    torch.testing.assert_close(found, of_each_group(rows, weights, bias, ends, transposed))


def test_nothing_changes_in_eager_mode_and_in_bfloat16():
    called = []

    def original(input, weight, bias=None, offs=None, is_transposed=False):  # noqa: A002 - transformers' name
        called.append(input.dtype)
        return input

    rows, weights, ends = drawn([2, 3], transposed=False)
    assert _row_by_row(original)(rows, weights, None, ends) is rows
    half = rows.to(torch.bfloat16)

    class Module(torch.nn.Module):
        def forward(self, x, offs):
            return _row_by_row(original)(x, weights.to(torch.bfloat16), None, offs) + 1

    torch.export.export(Module(), (half, ends), strict=False)
    assert called == [torch.float32, torch.bfloat16]


def test_it_is_needed_where_a_fake_product_refuses_float32():
    found = answer(experts_in_groups.PATCH)
    if found.need is Need.NEEDED:
        with pytest.raises(RuntimeError, match="BF16"), torch._subclasses.FakeTensorMode():
            torch._grouped_mm(torch.ones(4, 8), torch.ones(2, 8, 16), offs=torch.ones(2, dtype=torch.int32))
    else:
        assert found.reason
