from __future__ import annotations

import pytest

from matrix.cells.axes import Axes
from matrix.collect.nox_support import pairs, requested, worst
from matrix.errors import ExitCode, UserError


@pytest.mark.parametrize(
    ("codes", "code"),
    [([], 0), ([0, 0], 0), ([0, 4], 4), ([4, 1], 1), ([3, 4], 4), ([2, 1], 2), ([130, 2], 130), ([0, 77], 1)],
)
def test_the_worst_code_stands_for_all(codes: list[int], code: int) -> None:
    assert worst(codes) == code


def test_every_pair_has_a_session_and_tiers_are_tags(axes: Axes) -> None:
    found = {(torch, release): tags for torch, release, tags in pairs(axes, [])}
    assert len(found) == 13 * 39
    assert found["2.5", "4.53"] == ["smoke", "core", "full"]
    assert found["2.5", "5.23"] == []  # in no tier, since it cannot be made
    assert found["nightly", "main"] == ["upstream"]


def test_a_pinned_version_on_the_command_line_has_a_session(axes: Axes) -> None:
    found = pairs(axes, ["-s", "conformance(torch='2.5.0', transformers='4.53.1')"])
    assert ("2.5.0", "4.53.1", []) in found


def test_the_sessions_variable_is_read_too(axes: Axes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOXSESSION", "conformance(torch='2.5', transformers='4.53.1')")
    assert requested(axes, []) == [("2.5", "4.53.1")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("conformance(torch='9.9', transformers='4.53')", "nearest"),
        ("conformance(torch='2.5', transformers='4.99')", "nearest"),
        ("conformance(torch=2.5, transformers='4.53')", "quoted"),
        ("conformance(transformers='4.53', torch='2.5')", "torch, then transformers"),
        ("conformance(torch='2.5'", "no session"),
        ("conformance(torch='2.5', transformers='__import__(1)')", "unknown"),
    ],
)
def test_what_is_no_session_is_told_before_nox_looks(axes: Axes, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        requested(axes, ["-s", text])
    assert caught.value.exit_code == ExitCode.USAGE
