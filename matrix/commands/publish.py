"""`python -m matrix publish`: complete answers of this machine into what is published, and the table with them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matrix.collect.digest import counts, suite
from matrix.commands import report
from matrix.errors import ExitCode, UserError
from matrix.judge import publications
from matrix.judge.baseline import load_baseline
from matrix.paths import Paths
from matrix.records import files, parquet
from matrix.records.lines import CellRun
from matrix.records.optin import split
from matrix.records.publishing import Merged, merge, merge_opt_in
from matrix.records.sources import latest, read_good

NAME = "publish"
HELP = "take complete answers of this machine over into reports, and write the table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="what `python -m kvconform check --record FILE` wrote, on any machine and under any name",
    )
    parser.add_argument(
        "--records",
        type=Path,
        action="append",
        metavar="PATH",
        help="a folder or file of records; may repeat (default: the answers of this machine, .cache/records, and "
        "those to opt-in categories in .cache/partial)",
    )


def run(found: argparse.Namespace) -> int:
    """Write the published file, then the table; the exit code is that of `report`, or 2 where a file is bad."""
    paths = Paths.here()
    brought = [_brought(path, paths) for path in found.files]
    own, bad = _own(found, paths)
    own = [*own, *brought]
    for error in bad:
        print(f"error: {error.message}", file=sys.stderr)
    published = parquet.read(paths.published) if paths.published.exists() else []
    whole, opt_in = split(own)
    # Among the partial answers are those of runs that asked a check or two; nobody expects that these are published.
    whole = [run for run in whole if found.records or run in brought or not run.environment.selection]
    merged, extra = merge(published, whole), _opt_in(paths, opt_in)
    for cell in (*merged.taken, *extra.taken):
        print(f"  published: {cell}")
    for cell, why in (*merged.left.items(), *extra.left.items()):
        print(f"  not published: {cell}: {why}")
    refused = [run for run in brought if run not in (*merged.runs, *extra.runs)]
    if not merged.runs:
        print("nothing is published")
        return ExitCode.USAGE if bad else ExitCode.EMPTY
    if merged.taken:
        log = publications.load(paths.publications)
        new = publications.publication(latest(published), merged.runs, load_baseline())
        parquet.write(paths.published, merged.runs)
        publications.save(paths.publications, [new, *log])
    if extra.taken:
        parquet.write(paths.optin, extra.runs)
    code = report.write([paths.published], paths.reports, paths.site)
    return ExitCode.USAGE if bad or refused else code


def _own(found: argparse.Namespace, paths: Paths) -> tuple[list[CellRun], list[UserError]]:
    """The runs of the folders: those of this machine, unless files alone are to be taken over."""
    if found.files and not found.records:
        return [], []
    return read_good(*(found.records or [paths.records, paths.partial]))


def _brought(path: Path, paths: Paths) -> CellRun:
    """A record that was made elsewhere, and a line about where, since nobody saw the machine.

    Raises:
        UserError: it is no record.
    """
    run = files.read(path)
    about, sources = run.environment, suite(paths.root)
    answers = len(run.records)
    print(f"{path}: {run.cell}, {answers} checks asked on {about.gpu or about.platform} at {about.started}")
    print(f"  {sources.current(counts([run]))} of {answers} answers are about the sources of this checkout")
    return run


def _opt_in(paths: Paths, own: Sequence[CellRun]) -> Merged:
    """The answers to opt-in categories with those of this machine."""
    return merge_opt_in(parquet.read(paths.optin) if paths.optin.exists() else [], own)
