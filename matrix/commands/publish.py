"""`python -m matrix publish`: complete answers of this machine into what is published, and the table with them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from matrix.commands import report
from matrix.errors import ExitCode
from matrix.judge import publications
from matrix.judge.baseline import load_baseline
from matrix.paths import Paths
from matrix.records import parquet
from matrix.records.publishing import merge
from matrix.records.sources import latest, read_good

NAME = "publish"
HELP = "take complete answers of this machine over into reports, and write the table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--records",
        type=Path,
        action="append",
        metavar="PATH",
        help="a folder or file of records; may repeat (default: .cache/records, the answers of this machine)",
    )


def run(found: argparse.Namespace) -> int:
    """Write the published file, then the table; the exit code is that of `report`, or 2 where a file is bad."""
    paths = Paths.here()
    own, bad = read_good(*(found.records or [paths.records]))
    for error in bad:
        print(f"error: {error.message}", file=sys.stderr)
    published = parquet.read(paths.published) if paths.published.exists() else []
    merged = merge(published, own)
    for cell in merged.taken:
        print(f"  published: {cell}")
    for cell, why in merged.left.items():
        print(f"  not published: {cell}: {why}")
    if not merged.runs:
        print("nothing is published")
        return ExitCode.USAGE if bad else ExitCode.EMPTY
    if merged.taken:
        log = publications.load(paths.publications)
        new = publications.publication(latest(published), merged.runs, load_baseline())
        parquet.write(paths.published, merged.runs)
        publications.save(paths.publications, [new, *log])
    code = report.write([paths.published], paths.reports, paths.site)
    return ExitCode.USAGE if bad else code
