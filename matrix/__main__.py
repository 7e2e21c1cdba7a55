"""`python -m matrix`: the command line, which dispatches to `matrix.commands`."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, Protocol

from matrix.commands import bisect, checks, classes, compare, plan, portability, publish, report, run
from matrix.errors import ExitCode, UserError


class Verb(Protocol):
    """What a module of `matrix.commands` has."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, found: argparse.Namespace) -> int:
        """Do it and return the exit code."""


VERBS: tuple[Verb, ...] = (plan, run, report, publish, compare, bisect, checks, classes, portability)

EPILOG = """\
exit codes: 0 no regression; 1 a regression, a stale baseline row or an incomplete record; 2 usage; 3 nothing selected;
4 an environment could not be made; 130 interrupted. --traceback shows where an error came from."""

_INSTALL = "python -m pip install -r requirements.txt"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"{self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its documented exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    shows_traceback = "--traceback" in arguments
    try:
        found = parser().parse_args([text for text in arguments if text != "--traceback"])
        verb: Verb = found.verb
        return int(verb.run(found))
    except UserError as error:
        if shows_traceback:
            traceback.print_exc()
        print(error.render(), file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if shows_traceback or (error.name or "").startswith("matrix"):
            raise
        print(UserError(f"{error.name} is not installed here", _INSTALL).render(), file=sys.stderr)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`| head`); Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = _Parser(prog="python -m matrix", description="Plan, run and judge cells.", epilog=EPILOG)
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for verb in VERBS:
        command = commands.add_parser(verb.NAME, help=verb.HELP)
        verb.add_arguments(command)
        command.set_defaults(verb=verb)
    return top


if __name__ == "__main__":
    raise SystemExit(main())
