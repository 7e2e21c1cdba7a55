"""A window that is crossed by several tokens at once: repaired there, and left alone everywhere else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform import patch_functions
from kvconform.checks.behave import append, states
from kvconform.checks.builders import HEADS, WIDTH
from kvconform.checks.oracle import expect_same_stream
from kvconform.checks.rivals import WINDOWED, Stream
from kvconform.patches import Need, answer, windows_in_pieces
from kvconform.patches.registry import find

PATCH = find("windows-in-pieces")
RIVAL = next(rival for rival in WINDOWED if rival.name == "sliding-window-cache")
pytestmark = pytest.mark.skipif(
    answer(PATCH).need is not Need.NEEDED, reason="this release has no such class, or does it right"
)


def test_it_is_a_repair():
    assert PATCH.repairs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_every_piece_sees_what_the_reference_sees(counts):
    with patch_functions(PATCH.name):
        expect_same_stream(RIVAL, Stream("drawn", tuple(counts)))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 11), st.integers(1, 8))
def test_a_prompt_and_single_tokens_are_left_alone(prompt, tokens):
    """Nothing that native code gets right changes by a bit: one prompt of any length, then token by token."""

    def given_back():
        cache, start = RIVAL.build(2), 0
        for count in (prompt, *[1] * tokens):
            yield append(cache, *states(2, HEADS, count, WIDTH, seed=start), 0, start)
            start += count

    expected = [tuple(tensor.clone() for tensor in pair) for pair in given_back()]
    with patch_functions(PATCH.name):
        got = [tuple(tensor.clone() for tensor in pair) for pair in given_back()]
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_positions_on_meta_are_not_asked_for_their_numbers():
    with patch_functions(PATCH.name):
        assert not windows_in_pieces._crosses(torch.arange(3, 7, device="meta"), 4)
        assert windows_in_pieces._crosses(torch.arange(3, 7), 4)
