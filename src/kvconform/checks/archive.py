"""Saved programs load without unsafe unpickling, in this process and in a fresh one, and compute the same."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from kvconform.checks.errors import ExpectationError, expect, expect_equal

_UNSAFE = ("weights_only", "unpickl", "safe_globals", "WeightsUnpickler")


def save(program: torch.export.ExportedProgram, path: Path, where: str = "") -> None:
    """Save a program; whatever `torch.export.save` raises is a failed expectation."""
    __tracebackhide__ = True
    try:
        torch.export.save(program, str(path))
    except Exception as error:
        raise ExpectationError(f"torch.export.save raised {_one_line(error)}, expected an archive [{where}]") from error


def expect_loads(path: Path, where: str = "") -> torch.export.ExportedProgram:
    """Prove that an archive loads, with every class in it among torch's safe globals: no fallback to unsafe unpickling.

    The fallback shows as a warning or on torch's log, depending on the release; both are watched.
    """
    __tracebackhide__ = True
    with warnings.catch_warnings(record=True) as caught, _watched_log() as logged:
        warnings.simplefilter("always")
        try:
            program = torch.export.load(str(path))
        except Exception as error:
            raise ExpectationError(
                f"torch.export.load raised {_one_line(error)}, expected a program [{where}]"
            ) from error
    messages = [str(one.message) for one in caught] + logged
    unsafe = [text.splitlines()[0][:200] for text in messages if any(word in text for word in _UNSAFE)]
    expect_equal("warnings about unsafe unpickling", unsafe, [], where)
    return program


class _watched_log:  # noqa: N801 - used as a function
    """Collects what torch logs while it is entered."""

    def __enter__(self) -> list[str]:
        import logging

        self.messages: list[str] = []
        messages = self.messages

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                messages.append(record.getMessage())

        self.handler = Handler(level=logging.WARNING)
        self.loggers = [
            logging.getLogger("torch"),
            logging.getLogger("torch.export"),
            logging.getLogger("torch._export"),
        ]
        for logger in self.loggers:
            logger.addHandler(self.handler)
        return self.messages

    def __exit__(self, *exc: object) -> None:
        for logger in self.loggers:
            logger.removeHandler(self.handler)


def run_in_fresh_process(command: list[str], result: Path, where: str = "") -> list[Any]:
    """The leaves of a result that another process computes.

    Args:
        command: the arguments of the interpreter; the last one should be `result`.
        result: where the process saves a list of tensors with `torch.save`.
        where: what the check is about.

    Raises:
        ExpectationError: the process failed; the message ends with the last line that it printed.
    """
    __tracebackhide__ = True
    answer = subprocess.run(  # noqa: S603 - the arguments are the caller's own
        [sys.executable, *command], capture_output=True, text=True, timeout=220, check=False
    )
    last = (answer.stderr.strip().splitlines() or ["(no message)"])[-1]
    expect(answer.returncode == 0, f"loading and running in a fresh process raised {last[:600]}", where)
    leaves: list[Any] = torch.load(result)
    return leaves


def _one_line(error: BaseException, limit: int = 600) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:limit]}"
