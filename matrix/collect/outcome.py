"""How a cell's run ended, in a file that outlives the process that ran it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from matrix.cells.cell import Cell
from matrix.errors import ExitCode
from matrix.paths import Paths


@dataclass
class Outcome:
    """How a cell's run ended and where its time went; `matrix run` and the benchmarks read it from a file."""

    cell: str
    exit_code: int = ExitCode.OK
    error: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, paths: Paths) -> None:
        """Write it where `load` finds it."""
        path = paths.outcomes / f"{self.cell}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, paths: Paths, cell: Cell) -> Outcome | None:
        """The outcome of a cell's latest run, or None."""
        try:
            return cls(**json.loads((paths.outcomes / f"{cell.id}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
