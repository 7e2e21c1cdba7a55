"""Planted faults of the patch `sliding-windows`: each is noticed by the check that asks for one program."""

from __future__ import annotations

import pytest
import torch

from kvconform import probes
from kvconform.checks.errors import ExpectationError
from kvconform.patches import Need, answer, exportable, sliding_windows
from kvconform.patches.tracing import is_traced
from kvconform_conformance.examples.windows import ONE_WINDOW_PROGRAM, expect_one_program_for_all_lengths

pytestmark = pytest.mark.skipif(
    answer(sliding_windows.PATCH).need is not Need.NEEDED or probes.cache_class("DynamicSlidingWindowLayer") is None,
    reason="this environment takes one program for all lengths, or none",
)
MISTRAL = ONE_WINDOW_PROGRAM[0]


def holds_one_less(layer, counted):
    layer.keys, layer.values = (tensor.narrow(2, 0, tensor.shape[2] - 1) for tensor in (layer.keys, layer.values))


def counter_frozen(layer, counted):
    layer.cumulative_length = counted


def drops_the_newest(layer, counted):
    layer.keys = torch.cat([layer.keys[:, :, :1], layer.keys[:, :, :-1]], dim=2)


@pytest.mark.parametrize("fault", [holds_one_less, counter_frozen, drops_the_newest])
def test_a_fault_in_the_patch_is_noticed(fault, monkeypatch):
    cls = probes.cache_class("DynamicSlidingWindowLayer")
    with torch.no_grad(), exportable():
        patched = vars(cls)["update"]

        def update(self, key_states, value_states, *arguments, **named):
            counted = self.cumulative_length
            found = patched(self, key_states, value_states, *arguments, **named)
            if is_traced(key_states):
                fault(self, counted)
            return found

        with monkeypatch.context() as planted:
            planted.setattr(cls, "update", update)
            with pytest.raises(ExpectationError):
                expect_one_program_for_all_lengths(MISTRAL)
