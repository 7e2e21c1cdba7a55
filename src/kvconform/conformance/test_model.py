"""Model: tiny random models decode on with caches that went through a registration, and through an exported program."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from kvconform.checks import shapes, trees
from kvconform.checks.errors import expect
from kvconform.checks.exporting import expect_decodes, expect_exportable
from kvconform.conformance.models import EXPORTED, MODELS, DecodeStep, TinyModel, tokens

PROMPT, STEPS = 6, 6


@pytest.mark.parametrize("tiny", MODELS, ids=lambda tiny: tiny.name)
def test_decodes_on(registered: object, tiny: TinyModel) -> None:
    """Whatever cache the model returns survives a round trip before every step.

    And decodes on to the logits of the original.
    """
    model = tiny.build()
    encoded = tiny.encode(model, 2)
    original = tiny.prefill(model, 2, PROMPT)
    trees.expect_registered(original, tiny.name)
    restored = copy.deepcopy(original)
    for step in range(STEPS):
        where = f"{tiny.name}, step {step + 1} of {STEPS}"
        restored = trees.round_trip(restored, where)
        ids, start = tokens(2, 1, seed=step + 1), PROMPT + step
        expected = model(**tiny.step(model, ids, original, encoded, start))
        got = model(**tiny.step(model, ids, restored, encoded, start))
        expect(
            torch.allclose(got.logits, expected.logits, rtol=1e-5, atol=1e-5),
            f"logits differ by {(got.logits - expected.logits).abs().max().item():.3g}, expected at most 1e-05",
            where,
        )
        original, restored = tiny.cache_of(expected), tiny.cache_of(got)


@pytest.mark.parametrize("tiny", EXPORTED, ids=lambda tiny: tiny.name)
def test_exported_decode(registered: object, tiny: TinyModel) -> None:
    """A decode step exported with dynamic batch and length, cache in and out.

    Six fed-back steps at another batch and length equal eager.
    """
    model = tiny.build()
    module = DecodeStep(model)

    def build(batch: int, length: int) -> Any:
        return tiny.prefill(model, batch, length)

    def args(batch: int, length: int) -> tuple[Any, ...]:
        # The fed-back cache grows from step to step; leaves that are slices of longer tensors would make guards on
        # their strides.
        return tokens(batch, 1, seed=1), _contiguous(build(batch, length)), torch.tensor([length])

    trees.expect_registered(build(2, PROMPT), tiny.name)
    dims = shapes.named()
    asked: Any = ({0: dims.batch}, shapes.dynamic_shapes(build, 2, PROMPT, dims), {})
    program = expect_exportable(module, args(2, PROMPT), asked, where=tiny.name)
    expect_decodes(
        program,
        module,
        args(3, PROMPT + 3),
        lambda step: tokens(3, 1, seed=step + 1),
        steps=STEPS,
        where=f"{tiny.name}, batch 3",
    )


def _contiguous(cache: Any) -> Any:
    import torch.utils._pytree as pytree

    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.contiguous(), cache)
