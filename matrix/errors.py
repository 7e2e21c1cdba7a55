"""The documented exit codes, and the one error that reaches a user as a message instead of a traceback."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """The exit codes of the sessions and the commands of the matrix."""

    OK = 0
    """No regression."""
    REGRESSION = 1
    """A regression, a stale baseline row, or a record that is not whole."""
    USAGE = 2
    """A wrong option, value or file; nothing ran."""
    EMPTY = 3
    """The selection names no cell or no check."""
    UNRESOLVED = 4
    """The environment of a cell could not be made."""
    INTERRUPTED = 130
    """Ctrl-C."""


class UserError(Exception):
    """Something the user can put right.

    Args:
        message: what happened and why, a sentence or a few.
        next_command: the command to run next, empty where there is none.
        exit_code: one of `ExitCode`.
    """

    def __init__(self, message: str, next_command: str = "", exit_code: int = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.next_command = next_command
        self.exit_code = int(exit_code)

    def render(self) -> str:
        """The message as the command line shows it."""
        hint = f"\n  next: {self.next_command}" if self.next_command else ""
        return f"error: {self.message}{hint}"


class EmptySelectionError(UserError):
    """A selection that names no cell or no check; to run nothing and end with 0 would look like a success."""

    def __init__(self, message: str, next_command: str = "") -> None:
        super().__init__(message, next_command, ExitCode.EMPTY)


class UnresolvedError(UserError):
    """No environment exists for the cell: the releases do not fit each other, or do not exist.

    This is a fact about the cell and becomes its record.
    """

    def __init__(self, message: str, next_command: str = "") -> None:
        super().__init__(message, next_command, ExitCode.UNRESOLVED)


class MakingError(UserError):
    """The environment could not be made this time: no network, a full disk, no interpreter.

    This says nothing about the cell; an earlier record stays.
    """

    def __init__(self, message: str, next_command: str = "") -> None:
        super().__init__(message, next_command, ExitCode.UNRESOLVED)
