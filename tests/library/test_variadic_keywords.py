"""Inputs that a module takes as `**kwargs`: their shapes by either name, in any order, beside constants."""

from __future__ import annotations

import pytest
import torch

from kvconform.patches import patch_functions, variadic_keywords

AUTO = getattr(torch.export.Dim, "AUTO", None)
pytestmark = pytest.mark.filterwarnings("ignore")


class Adds(torch.nn.Module):
    """Adds what it is given, and asks for a size of it."""

    def forward(self, x, y=None, **more):
        found = x if y is None else x + y
        for name in ("bias", "other"):
            if name in more and more[name].shape[0] == x.shape[0]:
                found = found + more[name]
        return found * 2 if more.get("twice") else found


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "names",
    [("x", "bias"), ("bias", "x"), ("other", "y", "x", "bias"), ("x", "twice"), ("x", "y"), ("twice", "bias", "x")],
)
def test_shapes_are_taken_by_either_name_in_any_order(names, nested):
    def given(batch):
        return {name: name == "twice" or torch.full((batch, 3), float(len(name))) for name in names}

    batch = AUTO or torch.export.Dim("batch", min=2)
    shapes = {name: None if name == "twice" else {0: batch} for name in names}
    more = {name: shapes.pop(name) for name in names if name not in "xy"} if nested else {}
    with patch_functions("variadic-keywords"):
        asked = {**shapes, "more": more} if more else shapes
        program = torch.export.export(Adds(), (), given(4), dynamic_shapes=asked, strict=False).module()
        for size in (2, 7):
            assert torch.equal(program(**given(size)), Adds()(**given(size)))


def test_an_input_that_holds_another_is_no_variadic_one():
    tensor = torch.ones(2)
    inputs = {"x": tensor, "others": {"x": tensor}}
    assert variadic_keywords._given_twice(inputs, {"x": None, "others": {"x": None}}) is None
    inputs = {"y": tensor, "more": {"bias": tensor}, "bias": tensor}
    assert variadic_keywords._given_twice(inputs, {"y": None, "more": {"bias": None}}) == "more"
    assert variadic_keywords._given_twice(inputs, {"y": None, "more": None, "bias": None}) is None
