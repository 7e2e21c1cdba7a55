"""Experts that get a piece of the sorted tokens: every expert sees every token while traced, with the same result."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvconform import exportable, patch_functions
from kvconform.patches.experts_in_pieces import _each_in_its_piece, _of_module
from kvconform.patches.of_models import source_of
from kvconform_conformance.examples.masked import PIECES, MaskedExport, expect_exports

pytestmark = pytest.mark.filterwarnings("ignore")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(1, 3))
def test_each_row_has_the_answer_of_its_expert(sizes, width):
    tokens = torch.arange(1.0, sum(sizes) * width + 1).reshape(-1, width)
    factors = [2.0**number for number in range(len(sizes))]
    found = _each_in_its_piece(tokens, torch.tensor(sizes), [lambda x, f=factor: x * f for factor in factors])
    pieces = tokens.split(sizes)
    assert torch.equal(found, torch.cat([piece * factor for piece, factor in zip(pieces, factors, strict=True)]))


def test_an_expert_that_makes_no_number_spoils_no_row_of_another():
    found = _each_in_its_piece(torch.ones(2, 1), torch.tensor([2, 0]), [lambda x: x, lambda x: x / 0 * 0])
    assert torch.equal(found, torch.ones(2, 1))


@pytest.mark.parametrize("tiny", PIECES, ids=lambda tiny: tiny.name)
def test_eager_results_are_the_same_bits(tiny):
    if not all(need.met() for need in tiny.needs):
        pytest.skip("this release has no such model")
    model = tiny.build()
    ids = torch.arange(10).reshape(2, 5)
    before = model(input_ids=ids).logits
    with patch_functions("experts-in-pieces"):
        assert torch.equal(model(input_ids=ids).logits, before)


def test_only_functions_that_cut_tokens_are_replaced():
    assert _of_module(importlib.import_module("transformers.models.llama.modeling_llama")) == ()
    mixtral = importlib.import_module("transformers.models.mixtral.modeling_mixtral")
    assert _of_module(mixtral) == ()
    if "expert_size = expert_size.tolist()" in (source_of("granitemoe") or ""):
        found = _of_module(importlib.import_module("transformers.models.granitemoe.modeling_granitemoe"))
        assert sorted(one.owner.__name__ for one in found) == ["GraniteMoeParallelExperts", "GraniteMoeTopKGating"]


@pytest.mark.parametrize("tiny", PIECES[:1], ids=lambda tiny: tiny.name)
def test_a_prefill_is_right_at_sizes_that_it_was_not_exported_with(tiny):
    if not all(need.met() for need in tiny.needs):
        pytest.skip("this release has no such model")
    with exportable():
        expect_exports(MaskedExport(tiny, held=False))
