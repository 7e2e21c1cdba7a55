"""`python -m matrix report`: the records judged, and everything that is published written anew."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matrix.errors import ExitCode
from matrix.judge.baseline import DEFAULT
from matrix.paths import ROOT, Paths

if TYPE_CHECKING:
    from matrix.judge.publications import Publication

NAME = "report"
HELP = "judge the published records and write the table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--records",
        type=Path,
        action="append",
        metavar="PATH",
        help="a folder or file of records; may repeat, and the newest run of a cell counts "
        "(default: reports/records.parquet)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the table, figure and badges (default: reports)")
    parser.add_argument("--site", type=Path, metavar="DIR", help="for the site (default: --out if given, else site)")
    parser.add_argument(
        "--baseline", type=Path, default=DEFAULT, metavar="FILE", help="default: matrix/data/baseline.toml"
    )
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="renew the table in this file; default: README.md beside reports"
    )
    parser.add_argument(
        "--repository",
        default=_repository(),
        metavar="URL",
        help="the repository that the site links to (default: that of the CI job, if there is one)",
    )
    parser.add_argument(
        "--before",
        metavar="RECORDS",
        help="what was published before: a folder or file of records, or a git revision; the site tells what changed "
        "since (default: what `publish` wrote down beside the records)",
    )
    parser.add_argument("--summary", type=Path, metavar="FILE", help="append Markdown for a CI job to this file")


def run(found: argparse.Namespace) -> int:
    """Write everything.

    The exit code is 1 where a cell regressed, a row is stale or a run has no end, and 2 where a file is bad.
    """
    paths = Paths.here()
    out = found.out or paths.reports
    site = found.site or found.out or paths.site
    return write(
        found.records or [paths.published],
        out,
        site,
        baseline=found.baseline,
        readme=found.readme,
        summary=found.summary,
        repository=found.repository,
        before=found.before,
    )


def write(  # noqa: PLR0913 - the options of a command
    records: Sequence[Path],
    out: Path,
    site: Path,
    *,
    baseline: Path = DEFAULT,
    readme: Path | None = None,
    summary: Path | None = None,
    repository: str = "",
    before: str | None = None,
) -> ExitCode:
    """Judge, write and print."""
    from matrix.judge import publications
    from matrix.render import report, wording
    from matrix.render.site import build

    results = report.load(records, baseline)
    report.publish(
        results,
        out,
        site,
        readme or _beside(out, ROOT / "README.md"),
        summary,
        library=_beside(out, ROOT / build.LIBRARY),
        parquet=records[0] if len(records) == 1 and records[0].suffix == ".parquet" else None,
        repository=repository,
        publications=[*_since(before, records, baseline), *publications.load(_log(records))],
    )
    print(f"{wording.measured(results)}: {out}/table.md, {site}/index.html")
    for subject in results.subjects:
        print(f"  {wording.subject_name(subject)}: {wording.headline(results, subject)}")
    for warning in wording.warnings(results):
        print(f"  note: {warning}")
    for line in report.reasons(results):
        print(f"  {line}")
    for error in results.bad:
        print(f"error: {error}", file=sys.stderr)
    return report.code(results)


def _log(records: Sequence[Path]) -> Path:
    """What `publish` wrote down beside the first file of published records; a folder of records has no such file."""
    from matrix.judge.publications import NAME

    published = next((path for path in records if path.suffix == ".parquet"), records[0])
    return published.parent / NAME


def _since(before: str | None, records: Sequence[Path], baseline: Path) -> list[Publication]:
    """What these records change against those that were published before."""
    if before is None:
        return []
    from matrix.judge.baseline import load_baseline
    from matrix.judge.publications import publication
    from matrix.records.optin import split
    from matrix.records.sources import latest, read_good, read_latest

    now = latest(split(read_good(*records)[0])[0])
    found = publication(read_latest(before), now, load_baseline(baseline))
    return [found] if found.cells else []


def _beside(out: Path, path: Path) -> Path | None:
    """A file of the repository that tells what is published; a report written elsewhere changes none."""
    return path if out.resolve() == (ROOT / "reports").resolve() and path.is_file() else None


def _repository() -> str:
    server, name = os.environ.get("GITHUB_SERVER_URL", ""), os.environ.get("GITHUB_REPOSITORY", "")
    return f"{server}/{name}" if server and name else ""
