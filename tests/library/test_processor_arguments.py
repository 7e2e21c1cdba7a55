"""Arguments of a cache without a processor: the patch divides them as the release does, and exports follow it."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvconform.patches import Need, answer, patch_functions
from kvconform.patches.registry import find

PATCH = find("processor-arguments")
cache_utils = importlib.import_module("transformers.cache_utils")
pytestmark = pytest.mark.skipif(answer(PATCH).need is not Need.NEEDED, reason="no cache takes a processor here")


class Processor:
    """It takes one argument beside the cache."""

    def __init__(self, cache, kept):
        self.kept = kept


@given(st.dictionaries(st.sampled_from(["kept", "max_batch_size", "other"]), st.integers()))
@pytest.mark.parametrize("processor", [None, Processor])
def test_arguments_are_divided_as_without_the_patch(processor, named):
    expected = cache_utils.parse_processor_args(processor, dict(named))
    with patch_functions(PATCH.name):
        found = cache_utils.parse_processor_args(processor, dict(named))
    assert found == expected


def test_the_callers_arguments_are_not_handed_on():
    named = {"max_batch_size": 2}
    with patch_functions(PATCH.name):
        _, rest = cache_utils.parse_processor_args(None, named)
    assert rest is not named


class Makes(torch.nn.Module):
    def forward(self, keys):
        cache = cache_utils.DynamicCache()
        return cache.update(keys, keys + 1, 0)


def test_a_strict_export_makes_a_cache():
    keys = torch.arange(24.0).reshape(1, 2, 3, 4)
    with patch_functions(PATCH.name):
        program = torch.export.export(Makes(), (keys,), strict=True)
    torch._dynamo.reset()
    found = program.module()(keys * 2)
    assert all(map(torch.equal, found, (keys * 2, keys * 2 + 1)))
