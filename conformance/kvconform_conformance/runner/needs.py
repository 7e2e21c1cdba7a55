"""What a check needs from a release or a machine, declared on the check and asked before its subject runs.

This is the only way to `na` (the release lacks something) and `skip` (a policy known before the check). A check that
skips itself is an error, since a skip hides failures.
"""

from __future__ import annotations

from typing import Any

import pytest

from kvconform.checks.needs import Need, NotApplicableError

__all__ = ["Need", "NotApplicableError", "PolicySkipError", "needs", "needs_cuda", "require_all"]


class PolicySkipError(Exception):
    """A policy known before the check ran leaves it out."""


def needs(*requirements: Need) -> pytest.MarkDecorator:
    """Mark a check (or one parameter of it) with what it needs of the release."""
    return pytest.mark.needs(*requirements)


def needs_cuda(devices: int = 1) -> pytest.MarkDecorator:
    """Mark a check that runs real kernels: skipped unless `--device` is `cuda`."""
    return pytest.mark.cuda(devices)


def require_all(item: pytest.Item, device: str) -> None:
    """Ask everything that is declared on a check, and on its parameters that have `needs`.

    Raises:
        PolicySkipError: the check wants a device that this run does not use.
        NotApplicableError: the release lacks something.
    """
    for mark in item.iter_markers("cuda"):
        _require_cuda(device, mark.args[0] if mark.args else 1)
    for mark in item.iter_markers("needs"):
        for requirement in mark.args:
            requirement.require()
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    for value in parameters.values():
        for requirement in getattr(value, "needs", ()):
            requirement.require()


def _require_cuda(device: str, devices: int) -> None:
    if device != "cuda":
        raise PolicySkipError("needs a CUDA device; this run uses the CPU (--device cuda)")
    import torch

    if torch.cuda.device_count() < devices:
        raise PolicySkipError(f"needs {devices} CUDA devices, {torch.cuda.device_count()} here")
