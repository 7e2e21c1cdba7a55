"""Architectures (opt-in): every causal and sequence-to-sequence model of the installed release, tiny.

What a release has is read from its auto mappings when this category is asked for: a new release is asked about its new
models by itself.
"""

from __future__ import annotations

import pytest

from kvconform_conformance.examples.architectures import Asked, all_architectures, expect_decodes_on, expect_exports
from kvconform_conformance.runner import optin

pytestmark = pytest.mark.limit(180)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Read the mappings only where a run holds this category: importing them takes a second."""
    asked = optin.holds("architectures", metafunc.config)
    metafunc.parametrize("architecture", all_architectures() if asked else [], ids=lambda one: one.name)


def test_round_trip(registered: object, architecture: Asked) -> None:
    """The model's cache survives a round trip before each step, below and past its windows: the same logits."""
    expect_decodes_on(architecture.made)


def test_exported_decode(registered: object, architecture: Asked) -> None:
    """A decode step exported with dynamic batch and length is right at sizes that it was not exported with."""
    expect_exports(architecture.made, "decode")


def test_exported_prefill(registered: object, architecture: Asked) -> None:
    """A prefill exported with dynamic batch and length is right at sizes that it was not exported with."""
    expect_exports(architecture.made, "prefill")
