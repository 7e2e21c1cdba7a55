"""`python -m matrix report` and `compare`: the options of the two commands, and what they print."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matrix.errors import ExitCode
from matrix.judge.baseline import DEFAULT
from matrix.paths import ROOT, Paths


def add_parsers(commands: Any) -> None:
    """Add the two commands to the subparsers of `python -m matrix`."""
    here = Paths.here()
    report = commands.add_parser("report", help="judge the records and write the table")
    report.add_argument("--records", type=Path, default=here.records, metavar="DIR", help="default: reports/records")
    report.add_argument("--out", type=Path, default=here.home / "reports", metavar="DIR", help="default: reports")
    report.add_argument(
        "--baseline", type=Path, default=DEFAULT, metavar="FILE", help="default: matrix/data/baseline.toml"
    )
    report.add_argument(
        "--readme", type=Path, metavar="FILE", help="renew the table in this file; default: README.md beside reports"
    )
    report.add_argument("--summary", type=Path, metavar="FILE", help="append Markdown for a CI job to this file")
    report.set_defaults(command=run_report)
    compare = commands.add_parser("compare", help="what was added, removed, regressed, fixed, and what is flaky")
    compare.add_argument("old", help="a folder of records, or a git revision such as HEAD~1 or v1:reports/records")
    compare.add_argument("new", help="the later one")
    compare.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    compare.set_defaults(command=run_compare)


def run_report(found: argparse.Namespace) -> ExitCode:
    """Write everything; the exit code is 1 where a cell regressed, a row is stale or a run has no end."""
    from matrix.render import report, wording

    results = report.load(found.records, found.baseline)
    report.publish(results, found.out, found.readme or _readme_beside(found.out), found.summary)
    print(f"{wording.measured(results)}: {found.out}/index.html")
    for subject in results.subjects:
        print(f"  {wording.subject_name(subject)}: {wording.headline(results, subject)}")
    for warning in wording.warnings(results):
        print(f"  note: {warning}")
    code = report.code(results)
    for line in report.reasons(results):
        print(f"  {line}")
    return code


def run_compare(found: argparse.Namespace) -> ExitCode:
    """Print the differences; the exit code is 1 where ours regressed, a cell was lost, or a check is flaky."""
    from matrix.judge.compare import compare

    comparison = compare(found.old, found.new)
    print(json.dumps(comparison.to_json(), indent=1) if found.format == "json" else comparison.render())
    return comparison.exit_code


def _readme_beside(out: Path) -> Path | None:
    """The README that shows the published table; a report written elsewhere changes no README."""
    readme = ROOT / "README.md"
    return readme if out.resolve() == (ROOT / "reports").resolve() and readme.is_file() else None
