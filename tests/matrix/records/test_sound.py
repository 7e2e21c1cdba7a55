"""Parquet files whose rows cannot be answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from matrix.errors import UserError
from matrix.records import parquet
from tests.matrix import factories

Rows = list[dict[str, Any]]


def _twice(rows: Rows) -> None:
    rows.append(dict(rows[0]))


def _set(**values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[0].update(values)


BAD = {
    "not a number": (_set(seconds=float("nan")), "no time that a check can take"),
    "negative": (_set(seconds=-0.5), "no time that a check can take"),
    "without end": (_set(seconds=float("inf")), "no time that a check can take"),
    "no time": (_set(seconds=None), "no time that a check can take"),
    "no status": (_set(status=None), "a check has no status"),
    "no subject": (_set(subject=None), "a check has no subject"),
    "another status": (_set(status="fine"), "a status is 'fine'"),
    "two answers": (_twice, "a check is answered twice in a run"),
    "no cell": (lambda rows: [row.update(cell="somewhere") for row in rows], "is no cell id"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("read", [parquet.read, parquet.read_columns])
def test_rows_that_are_no_answers_are_refused(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    spoil, said = BAD[name]
    path = tmp_path / "records.parquet"
    parquet.write(path, [factories.run(factories.record("a/one"), factories.record("a/two"))])
    read(path)
    table = pq.read_table(path)
    rows = table.to_pylist()
    spoil(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    with pytest.raises(UserError, match=said) as caught:
        read(path)
    assert caught.value.exit_code == 2
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
