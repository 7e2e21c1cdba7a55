"""A tiny Llama and its programs, exported once a module."""

import pytest

from kvconform.export.decoder import export_decoder
from kvconform.export.tiny import make_tiny


@pytest.fixture(scope="module")
def model():
    return make_tiny("LlamaConfig")


@pytest.fixture(scope="module")
def exported(model):
    return export_decoder(model)
