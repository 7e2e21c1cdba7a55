"""The oracle must be able to fail: planted faults of a cache, and of the window's convention."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("transformers")

from kvconform.checks import oracle, rivals
from kvconform.checks.errors import ExpectationError


def rival(name):
    found = next(r for r in (*rivals.FULL, *rivals.WINDOWED, *rivals.CROSSED) if r.name == name)
    if not all(need.met() for need in found.needs):
        pytest.skip("not in this release")
    return found


def stream(name="token-by-token"):
    return next(s for s in rivals.STREAMS if s.name == name)


def test_an_unconverted_window_is_found(monkeypatch):
    monkeypatch.setattr(rivals, "window_from_visible", lambda visible: visible)
    with pytest.raises(ExpectationError, match=r"attention differs by .* positions 4 to 4"):
        oracle.expect_same_stream(rival("dynamic-sliding"), stream())


def test_a_window_is_no_chunk():
    wrong = dataclasses.replace(rival("dynamic-sliding"), layers=(rivals.Attends(), rivals.Attends()))
    with pytest.raises(ExpectationError, match="attention differs"):
        oracle.expect_same_stream(wrong, stream())


@pytest.mark.parametrize("side", ["key", "value"])
def test_a_spoiled_tensor_is_found(side):
    def spoil(cache):
        keys, values = oracle._stored(cache, 0) if cache.get_seq_length() else (None, None)
        if keys is not None:
            (keys if side == "key" else values)[:, :, 0] += 0.5
        return cache

    with pytest.raises(ExpectationError, match="attention differs"):
        oracle.expect_same_stream(rival("dynamic"), stream(), spoil)


def test_a_lost_crop_is_found(monkeypatch):
    monkeypatch.setattr(oracle, "crop", lambda *_: None)
    with pytest.raises(ExpectationError):
        oracle.expect_same_after_crop(rival("dynamic"), 4)


def test_the_other_order_is_found():
    def swap(cache):
        cache.reorder_cache(oracle.torch.tensor([1, 0]))
        return cache

    with pytest.raises(ExpectationError, match="attention differs"):
        oracle.expect_same_after_reorder(rival("dynamic"), (0, 1), swap)
