"""Where things lie: one object, so that a test can put everything into a folder of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "matrix" / "data"
"""The data of the matrix, as TOML: the releases, the expected failures, the opt-in packages."""


@dataclass(frozen=True)
class Paths:
    """The folders of one checkout.

    `KVCONFORM_HOME` moves everything that is written (environments, caches, records), which is what the tests and the
    benchmarks do; the sources stay where they are.
    """

    root: Path = ROOT
    home: Path = ROOT
    baseline: Path = DATA / "baseline.toml"

    @classmethod
    def here(cls) -> Paths:
        """The paths of this checkout."""
        return cls(home=Path(os.environ.get("KVCONFORM_HOME", ROOT)).resolve())

    @property
    def records(self) -> Path:
        """The answers of this machine, a file of lines a cell; `python -m matrix publish` takes complete ones over."""
        return self.home / ".cache" / "records"

    @property
    def reports(self) -> Path:
        """What is published."""
        return self.home / "reports"

    @property
    def published(self) -> Path:
        """The published answers, all cells in one file."""
        return self.reports / "records.parquet"

    @property
    def optin(self) -> Path:
        """The published answers to opt-in categories, which are asked in runs of their own."""
        return self.reports / "optin.parquet"

    @property
    def publications(self) -> Path:
        """What each publication changed against the one before it."""
        return self.reports / "publications.json"

    @property
    def portability(self) -> Path:
        """What cells saved, what loading it answered, and the grid of the latest selection."""
        return self.home / ".cache" / "portability"

    @property
    def site(self) -> Path:
        """What is built from the published answers and not committed: the page, and the table as JSON."""
        return self.home / "site"

    @property
    def partial(self) -> Path:
        """Records of runs that asked for less than everything: they never stand in for a cell's record."""
        return self.home / ".cache" / "partial"

    @property
    def venvs(self) -> Path:
        """One virtual environment a cell, beside those that nox makes."""
        return self.home / ".nox"

    @property
    def resolved(self) -> Path:
        """What the resolver answered, so that a second run needs no network."""
        return self.home / ".cache" / "resolved"

    @property
    def outcomes(self) -> Path:
        """How each cell's latest run ended and where its time went."""
        return self.home / ".cache" / "outcomes"

    @property
    def logs(self) -> Path:
        """The full output of each cell of a `matrix run`."""
        return self.home / ".cache" / "logs"

    @property
    def locks(self) -> Path:
        """Locks of running cells and runs."""
        return self.home / ".cache" / "locks"
