"""Conformance checks as plain functions, usable in anybody's own test-suite.

Each `expect_*` function returns nothing, or what it built on the way, and raises `ExpectationError` with
what was
got, what was expected and where. They judge whatever is registered when they run, never kvconform in particular.
"""

from kvconform.checks.errors import ExpectationError, expect, expect_equal

__all__ = ["ExpectationError", "expect", "expect_equal"]
