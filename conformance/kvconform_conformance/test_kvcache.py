"""KV cache: transformers' caches attend to what the reference KV cache attends to, as they are and once restored."""

from __future__ import annotations

import pytest

from kvconform.checks import oracle, trees
from kvconform.checks.oracle import Restore
from kvconform.checks.rivals import CROSSED, FULL, STREAMS, WINDOWED, Rival, Stream

streams = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
restored = pytest.mark.parametrize("restore", [oracle.unchanged, trees.round_trip], ids=["as-is", "restored"])


@pytest.mark.parametrize("rival", FULL, ids=lambda rival: rival.name)
@streams
@restored
def test_causal(registered: object, restore: Restore, stream: Stream, rival: Rival) -> None:
    """Full attention: every earlier token and no other takes part.

    A cache that was never flattened (`as-is`) passes without any registration. A failure of the restored one is the
    registration's only where `as-is` passes.
    """
    oracle.expect_same_stream(rival, stream, restore)


@pytest.mark.parametrize("rival", WINDOWED, ids=lambda rival: rival.name)
@streams
@restored
def test_window(registered: object, restore: Restore, stream: Stream, rival: Rival) -> None:
    """Windows and chunks: exactly those of the window, below it, at it and past it.

    A cache that was never flattened (`as-is`) passes without any registration. A failure of the restored one is the
    registration's only where `as-is` passes.
    """
    oracle.expect_same_stream(rival, stream, restore)


@pytest.mark.parametrize("rival", CROSSED, ids=lambda rival: rival.name)
@pytest.mark.parametrize("stream", STREAMS[:1] + STREAMS[-1:], ids=lambda stream: stream.name)
@restored
def test_encoder_decoder(registered: object, restore: Restore, stream: Stream, rival: Rival) -> None:
    """Self and cross attention: what an encoder made is written once and seen by every token.

    A cache that was never flattened (`as-is`) passes without any registration. A failure of the restored one is the
    registration's only where `as-is` passes.
    """
    oracle.expect_same_encoder_decoder(rival, stream, restore)


@pytest.mark.parametrize("keep", [1, 4, 6])
@restored
def test_crop(registered: object, restore: Restore, keep: int) -> None:
    """Cropping a DynamicCache is removing to the end.

    A cache that was never flattened (`as-is`) passes without any registration. A failure of the restored one is the
    registration's only where `as-is` passes.
    """
    oracle.expect_same_after_crop(FULL[0], keep, restore)


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (2, 0, 0), (1, 2, 1)], ids=lambda order: "-".join(map(str, order)))
@restored
def test_reorder(registered: object, restore: Restore, order: tuple[int, ...]) -> None:
    """Reordering the batch of a DynamicCache is copying prefixes.

    A cache that was never flattened (`as-is`) passes without any registration. A failure of the restored one is the
    registration's only where `as-is` passes.
    """
    oracle.expect_same_after_reorder(FULL[0], order, restore)
