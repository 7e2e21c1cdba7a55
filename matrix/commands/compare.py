"""`python -m matrix compare`."""

from __future__ import annotations

import argparse
import json

NAME = "compare"
HELP = "what was added, removed, regressed, fixed, and what is flaky"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "old", help="a folder or file of records, or a git revision such as HEAD~1 or v1:reports/records"
    )
    parser.add_argument("new", help="the later one")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


def run(found: argparse.Namespace) -> int:
    """Print the differences; the exit code is 1 where ours regressed, a cell was lost, or a check is flaky."""
    from matrix.judge.compare import compare

    comparison = compare(found.old, found.new)
    print(json.dumps(comparison.to_json(), indent=1) if found.format == "json" else comparison.render())
    return comparison.exit_code
