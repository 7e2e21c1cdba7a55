"""`python -m kvconform`: the commands that run in an environment with torch and transformers.

`check` puts subjects to the conformance suite, `doctor` says what this environment can do, `patches` what it
needs patched, `validate` exports a model and compares; `explain` and `pins` answer from what was measured before
and need neither.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable

USAGE = """usage: python -m kvconform COMMAND [OPTION]...

commands:
  check    put registrations of cache classes to the conformance suite (python -m kvconform check --help)
  doctor   say what this environment can do (python -m kvconform doctor --help)
  patches  list the patches of torch and transformers, and which of them are needed here (python -m kvconform patches)
  validate export a model and compare each step with it (python -m kvconform validate --help)
  explain  say whether an error is known, since when, and what to do (python -m kvconform explain "MESSAGE")
  pins     print versions that were measured good for a goal (python -m kvconform pins --goal newest)

  --version
"""


_COMMANDS = {
    "doctor": "kvconform.doctor",
    "patches": "kvconform.patches.command",
    "validate": "kvconform.export.validate",
    "explain": "kvconform.explain",
    "pins": "kvconform.pins",
}
"""By command of the library, the module whose `main` runs it."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; 2 for a command that does not exist, 130 for an interrupted one."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`), and Python would complain once more when it flushes at exit. The
        # result of the command is not known then: it counts as interrupted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 130


def _run(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "check":
        from kvconform_conformance.runner import cli

        return cli.main(rest)
    if command in _COMMANDS:
        # Imported when asked for: `explain` and `pins` need neither torch nor the suite.
        main_of: Callable[[list[str]], int] = importlib.import_module(_COMMANDS[command]).main
        return main_of(rest)
    if command in {"-V", "--version"}:
        from kvconform._version import __version__

        print(f"kvconform {__version__}")
        return 0
    if command in {"-h", "--help"}:
        print(USAGE, end="")
        return 0
    print(f"error: no command {command!r}\n\n{USAGE}" if command else USAGE, end="", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
