"""`python -m matrix classes`: what the cache classes of each transformers release have."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from matrix.cells import axes as axes_module
from matrix.classes import reading, table
from matrix.collect import uv
from matrix.errors import ExitCode, UserError
from matrix.records import writing

NAME = "classes"
HELP = "read what the cache classes of each transformers release have, for `kvconform explain`"
SOURCE = Path("transformers") / "cache_utils.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, default=table.PATH, metavar="FILE", help="where the table goes")


def run(found: argparse.Namespace) -> int:
    """Fetch the newest patch of each minor, read its classes, and write the table when all were read."""
    read = {}
    for release in axes_module.load().known("transformers"):
        print(f"  read  transformers {release}", flush=True)
        read[release] = reading.classes(_source(release))
    made = table.merge(read)
    writing.put(found.out, table.dumps(made))
    print(f"{len(made.classes)} classes of {len(read)} releases: {found.out}\nnext: python -m matrix report")
    return ExitCode.OK


def _source(release: str) -> str:
    """The text of the release's module of caches; the package is not imported, and needs none of its dependencies."""
    with tempfile.TemporaryDirectory() as folder:
        uv.run(["pip", "install", "--no-deps", "--target", folder, f"transformers=={release}.*"], cwd=Path(folder))
        try:
            return (Path(folder) / SOURCE).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"transformers {release} has no {SOURCE}: {error}", "python -m matrix classes") from None
