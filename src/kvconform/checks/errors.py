"""The one error of the checks, and the one shape of its message."""

from __future__ import annotations

from typing import Any


class ExpectationError(AssertionError):
    """A subject answered, and the answer is wrong. Anything else that is raised is an error, not a failure."""


def expect(condition: object, message: str, where: str = "") -> None:
    """Raise `ExpectationError` with `message [where]` unless `condition` holds."""
    __tracebackhide__ = True
    if not condition:
        raise ExpectationError(f"{message} [{where}]" if where else message)


def expect_equal(what: str, got: Any, expected: Any, where: str = "") -> None:
    """Compare two plain values: `sequence length is 3, expected 9 [DynamicCache, after 9 tokens]`."""
    __tracebackhide__ = True
    expect(got == expected, f"{what} is {_short(got)}, expected {_short(expected)}", where)


def _short(value: Any, limit: int = 400) -> str:
    """The representation of a value, cut to what a reader of a table can take in."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
