"""`python -m matrix compare`: two sets of records, or releases of one set."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from matrix.errors import ExitCode, UserError
from matrix.paths import Paths

NAME = "compare"
HELP = "what was added, removed, regressed, fixed, and what is flaky; or what each release broke and repaired"
_EXAMPLE = "python -m matrix compare HEAD~1 HEAD, or python -m matrix compare --transformers 4.56..4.57"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "old", nargs="?", help="a folder or file of records, or a git revision such as HEAD~1 or v1:reports/records"
    )
    parser.add_argument("new", nargs="?", help="the later one")
    for axis in ("torch", "transformers"):
        parser.add_argument(
            f"--{axis}",
            metavar="A..B",
            help=f"instead of two sets of records: each {axis} after A, up to B, against the one before it",
        )
    parser.add_argument(
        "--records",
        type=Path,
        action="append",
        metavar="PATH",
        help="the records whose releases are compared (default: reports/records.parquet)",
    )
    parser.add_argument("--all", action="store_true", help="every difference in a line, instead of a page of causes")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


def run(found: argparse.Namespace) -> int:
    """Print the differences.

    Of two sets of records, the exit code is 1 where ours regressed, a cell was lost, or a check is flaky. Of releases
    it is 0: what they broke is a fact about them, and `report` judges it.
    """
    named = [axis for axis in ("torch", "transformers") if getattr(found, axis)]
    if len(named) == 1 and not found.old:
        return _releases(found, named[0])
    if named or not found.new:
        raise UserError("compare needs two sets of records, or a range of one of torch and transformers", _EXAMPLE)
    from matrix.judge.compare import compare

    comparison = compare(found.old, found.new)
    if found.format == "json":
        print(json.dumps(comparison.to_json(), indent=1))
    else:
        print(comparison.render() if found.all else comparison.page())
    return comparison.exit_code


def _releases(found: argparse.Namespace, axis: str) -> int:
    from matrix.render import releases, report

    results = report.load(found.records or [Paths.here().published])
    changes = releases.between(results, axis, getattr(found, axis))
    if found.format == "json":
        print(json.dumps([releases.to_json(each) for each in changes], indent=1))
    else:
        print("\n\n".join(releases.text(each, results.subjects, whole=found.all) for each in changes))
    for error in results.bad:
        print(f"error: {error}", file=sys.stderr)
    return ExitCode.USAGE if results.bad else ExitCode.OK
