"""Whether what runs now is being traced: by torch.export (strict or not), torch.compile or torch.jit.trace."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["is_traced"]


def is_traced(*values: Any) -> bool:
    """Whether a tracer is at work, or one of these values is a tracer's tensor (fake, functional, or a proxy)."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return True
    from torch._subclasses.fake_tensor import FakeTensor

    return any(
        isinstance(value, (FakeTensor, torch.fx.Proxy))
        or (isinstance(value, torch.Tensor) and torch._is_functional_tensor(value))
        for value in values
    )
