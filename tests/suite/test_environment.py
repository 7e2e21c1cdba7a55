from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from kvconform_conformance.runner import environment
from kvconform_conformance.runner.environment import Environment, EnvironmentMismatchError

HERE = Environment(
    torch="2.10.0+cu128",
    transformers="4.53.3",
    python="3.11.7",
    platform="Linux-x86_64",
    device="cpu",
    gpu=None,
    packages={"numpy": "2.3.1", "pytest-xdist": "3.6.1"},
    commit=None,
)


def test_the_cell_is_named_after_minors():
    assert HERE.cell == "torch2.10-tf4.53-py3.11-cpu"
    assert dataclasses.replace(HERE, device="cuda").cell == "torch2.10-tf4.53-py3.11-cuda"


@pytest.mark.parametrize(
    "expected", ["torch=2.10", "torch=2.10.0", "torch=2.10.0+cu128", "python=3", "numpy=2.3", "pytest_xdist=3.6"]
)
def test_versions_are_expected_by_whole_components(expected):
    HERE.verify([expected])


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ("torch=2.1", "2.10.0+cu128"),
        ("torch=2.10.1", "2.10.0+cu128"),
        ("transformers=4.5", "4.53.3"),
        ("numpy=", "2.3.1"),
        ("optree=0.13", "not installed"),
    ],
)
def test_another_version_is_refused_with_a_next_command(expected, got):
    package, _, wanted = expected.partition("=")
    with pytest.raises(EnvironmentMismatchError) as caught:
        HERE.verify(["python=3.11", expected])
    assert str(caught.value).startswith(f"{package} is {got}, expected {wanted}: recreate the environment")


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EnvironmentMismatchError, match="torch is not installed here: python -m pip install torch"):
        Environment.here("cpu")


def test_cuda_without_a_device_is_refused(monkeypatch):
    monkeypatch.setattr(environment, "_gpu_name", lambda: None)
    with pytest.raises(EnvironmentMismatchError, match="run with --device cpu"):
        Environment.here("cuda")
    assert Environment.here("auto").device == "cpu"


def test_the_versions_are_read_without_importing_torch():
    code = (
        "import sys; from kvconform_conformance.runner.environment import Environment; "
        "here = Environment.here('cpu'); print(here.torch, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, imported = done.stdout.split()
    assert version == environment._version_of("torch")
    assert imported == "False"
