"""Fixtures of the library's tests: one thread, tables left as found, every cache registered."""

from __future__ import annotations

import contextlib
import importlib

import pytest
import torch

from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def _clean_tables():
    """Fail a test that leaves a table of torch other than it found it."""
    from kvconform import register_flattening_functions

    # What transformers and torch register when they are first imported belongs to the state before.
    importlib.import_module("transformers.modeling_outputs")
    with contextlib.suppress(ImportError):
        importlib.import_module("transformers.integrations.executorch")
    with register_flattening_functions():
        pass
    before = registry_snapshot()
    yield
    expect_registry_unchanged(before)


@pytest.fixture(scope="module")
def _registered():
    """Every cache class is a node in the tests of a module."""
    from kvconform import register_flattening_functions

    with register_flattening_functions(patch_transformers=True):
        yield
