"""Aoti (opt-in): programs of one call, compiled by AOTInductor with the C++ compiler at hand, loaded and run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kvconform.checks.needs import Need, has
from kvconform.export.runtimes import to_aoti
from kvconform_conformance.examples.generation import Generating
from kvconform_conformance.examples.runtimes import RUN_ELSEWHERE, expect_same_tokens_in
from kvconform_conformance.runner.needs import needs
from kvconform_conformance.runner.subjects import Subject

pytestmark = needs(
    has("torch._inductor:aoti_load_package"),
    Need(lambda: shutil.which("g++") is not None, "no g++ on this machine"),
)


@pytest.mark.parametrize("generating", RUN_ELSEWHERE, ids=lambda generating: generating.name)
def test_as_the_model(subject: Subject, generating: Generating, tmp_path: Path) -> None:
    """Packages of AOTInductor generate the 64 tokens of `model.generate()`, at two batches, padded, past a window."""
    expect_same_tokens_in(to_aoti, subject, generating, tmp_path)
