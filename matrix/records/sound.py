"""What every row of a file of records has to hold, whoever wrote the file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from matrix.cells.cell import Cell
from matrix.errors import UserError
from matrix.records.lines import MOST_SECONDS, STATUSES, MalformedError

if TYPE_CHECKING:
    import pyarrow as pa


def expect_cells(cells: Iterable[str]) -> None:
    """Raise `MalformedError` where a run is of no cell."""
    for cell in dict.fromkeys(cells):
        try:
            Cell.parse(cell)
        except UserError as error:
            raise MalformedError(error.message) from None


def expect_sound(checks: pa.Table, number: str) -> None:
    """Raise `MalformedError` where a check has no name or status, an impossible time, or several answers in a run.

    Args:
        checks: one row a check; rows of runs without checks are left out before.
        number: the column with the number of the run.
    """
    import pyarrow.compute as pc

    if not checks.num_rows:
        return
    # The columns that every writer has filled; `category` and the texts may come later than a file.
    for name in ("id", "subject", "status"):
        if checks[name].null_count:
            raise MalformedError(f"a check has no {name}")
    odd = set(pc.unique(checks["status"]).to_pylist()) - set(STATUSES)
    if odd:
        raise MalformedError(f"a status is {min(map(str, odd))!r}")
    seconds = checks["seconds"]
    possible = pc.and_(pc.greater_equal(seconds, 0.0), pc.less(seconds, float(MOST_SECONDS)))
    # Not a number is neither above nor below anything, so it counts as impossible too.
    if seconds.null_count or not pc.all(possible).as_py():
        raise MalformedError('"seconds" is no time that a check can take')
    # Counted as numbers: the same texts of a million rows take seconds.
    table = checks.select([number])
    for name in ("subject", "id"):
        column = checks[name].combine_chunks()
        encoded = column if hasattr(column, "indices") else column.dictionary_encode()
        table = table.append_column(name, encoded.indices)
    answers = table.group_by([number, "subject", "id"], use_threads=False).aggregate([([], "count_all")])
    if answers.num_rows < checks.num_rows:
        raise MalformedError("a check is answered twice in a run")
