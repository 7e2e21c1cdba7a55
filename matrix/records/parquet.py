"""Many runs in one Parquet file: what is published.

A row holds a check and the header of its run. A run without checks is one row whose check columns are null. Parquet
stores repeated texts once, so that it takes a small part of what the lines take. Rows are ordered by cell, by the start
of the run, and by its plan, so that the same runs give the same file. Each page of the file has a checksum, by which
reading notices damage.

Reading gives back the same `CellRun` as the lines gave, but for times, which are kept to a tenth of a second: no two
runs share their milliseconds, so that these took more space than anything else. A command that follows from the
subject and the id is not stored. What a `CellRun` does not hold is left out: the "started" line of a check that has an
answer, and the counts of the "end" line.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matrix.errors import UserError
from matrix.records.lines import TEXTS, CellRun, Environment, MalformedError, Record, Selection, usual_command
from matrix.records.sound import expect_cells, expect_sound
from matrix.records.writing import replacing

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = 2
READABLE = (1, 2)
"""Schema 1 had every command and every millisecond."""
SCHEMA_KEY = b"kvconform.records"
NUMBER = "run"
"""The column with the number of the run that a row belongs to."""
RUN_COLUMNS = ("cell", *TEXTS, "packages", "subjects", "selection", "complete", "unresolved", "finished")
CHECK_COLUMNS = tuple(Record.__dataclass_fields__)
_DIGITS = 1


def write(path: Path, runs: Iterable[CellRun]) -> None:
    """Write runs in place of a file.

    Raises:
        UserError: it could not be written; the file that was there stays whole.
    """
    import pyarrow.parquet as pq

    ordered = sorted(runs, key=lambda run: (run.cell, run.environment.started or ""))
    table = _table(ordered)
    with replacing(path) as part:
        pq.write_table(table, part, compression="zstd", compression_level=9, write_page_checksum=True)


def read(path: Path, cells: Collection[str] | None = None) -> list[CellRun]:
    """The runs of a file, or those of some cells.

    Raises:
        UserError: the file is torn, or not what `write` writes.
    """
    columns = [NUMBER, *RUN_COLUMNS, *CHECK_COLUMNS]
    return list(_runs(path, columns, cells))


def read_headers(path: Path) -> list[CellRun]:
    """The runs of a file without their checks: which cells they answer, and whether they reached their end.

    Raises:
        UserError: as `read`.
    """
    return list(_runs(path, [NUMBER, *RUN_COLUMNS], None))


def read_counts(path: Path) -> list[tuple[CellRun, dict[tuple[str, str, str], int]]]:
    """The runs of a file without their checks, each with how many answers are about a subject, category and digest.

    Raises:
        UserError: as `read`.
    """
    runs, checks = read_columns(path)
    found: list[dict[tuple[str, str, str], int]] = [{} for _ in runs]
    if "sources" not in checks.column_names:
        # A file of an earlier release, whose answers do not tell what they are about.
        checks = checks.append_column("sources", [[""] * checks.num_rows])
    keys = [NUMBER, "subject", "category", "sources"]
    for row in checks.group_by(keys).aggregate([([], "count_all")]).to_pylist():
        found[row[NUMBER]][row["subject"], row["category"], row["sources"]] = row["count_all"]
    return list(zip(runs, found, strict=True))


def read_columns(path: Path) -> tuple[list[CellRun], pa.Table]:
    """The runs of a file without their checks, and the checks of all of them as columns: for millions of them.

    Returns:
        The runs in the order of the file, and a table of `CHECK_COLUMNS` beside `run`, the number of the run. Texts are
        dictionaries: each is there once.

    Raises:
        UserError: as `read`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    texts = [name for name in (*RUN_COLUMNS, *CHECK_COLUMNS) if name not in ("complete", "seconds")]
    try:
        with pq.ParquetFile(path) as file:
            _expect_schema(file.schema_arrow)
        table = pq.read_table(path, read_dictionary=texts, partitioning=None, page_checksum_verification=True)
        table = table.unify_dictionaries()
        numbers = table[NUMBER].to_numpy()
        starts = [0, *((numbers[1:] != numbers[:-1]).nonzero()[0] + 1).tolist()] if len(numbers) else []
        about = table.select(list(RUN_COLUMNS)).take(pa.array(starts, pa.int64())).to_pylist()
        runs = [_run(row, ()) for row in about]
        checks = table.select([NUMBER, *(name for name in CHECK_COLUMNS if name in table.column_names)])
        checks = checks.filter(pc.is_valid(checks["id"]))
        expect_cells(run.cell for run in runs)
        expect_sound(checks, NUMBER)
        checks = _with_commands(checks)
    except OSError as error:
        if not isinstance(error, pa.ArrowException) and error.errno is not None:
            raise UserError(f"{path} cannot be read: {error.strerror}", f"ls -l {path}") from None
        raise _torn(path, error) from None
    except (pa.ArrowException, MalformedError, KeyError, TypeError, ValueError) as error:
        raise _torn(path, error) from None
    return runs, checks


def _table(runs: list[CellRun]) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in (NUMBER, *RUN_COLUMNS, *CHECK_COLUMNS)}
    for number, run in enumerate(runs):
        count = max(1, len(run.records))
        columns[NUMBER] += [number] * count
        for name, value in _about(run).items():
            columns[name] += [value] * count
        for name in CHECK_COLUMNS:
            columns[name] += [_stored(record, name) for record in run.records] or [None]
    types = {NUMBER: pa.int32(), "complete": pa.bool_(), "seconds": pa.float64()}
    fields = [pa.field(name, types.get(name, pa.string())) for name in columns]
    return pa.table(columns, schema=pa.schema(fields, metadata={SCHEMA_KEY: str(SCHEMA)}))


def _stored(record: Record, name: str) -> Any:
    value = getattr(record, name)
    if name == "seconds":
        return round(value, _DIGITS)
    if name == "reproduce" and value == usual_command(record.subject, record.id):
        return None
    return _valid(value)


def _with_commands(checks: pa.Table) -> pa.Table:
    """The commands that were not stored, each text once: there are as many as subjects and ids, not as records."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if "reproduce" not in checks.column_names or not checks["reproduce"].null_count:
        return checks
    told, subjects, ids = (checks[name].combine_chunks() for name in ("reproduce", "subject", "id"))
    pairs = subjects.indices.to_numpy().astype(np.int64) * len(ids.dictionary) + ids.indices.to_numpy()
    different, which = np.unique(pairs, return_inverse=True)
    names = subjects.dictionary.to_pylist(), ids.dictionary.to_pylist()
    commands = [usual_command(names[0][pair // len(names[1])], names[1][pair % len(names[1])]) for pair in different]
    usual = pa.array(which + len(told.dictionary), pa.int32())
    codes = pc.if_else(pc.is_null(told.indices), usual, told.indices.cast(pa.int32()))
    texts = pa.concat_arrays([told.dictionary, pa.array(commands, told.dictionary.type)])
    filled = pa.DictionaryArray.from_arrays(codes, texts)
    return checks.set_column(checks.column_names.index("reproduce"), "reproduce", filled)


def _about(run: CellRun) -> dict[str, Any]:
    about = run.environment
    return {
        "cell": run.cell,
        **{name: _valid(getattr(about, name)) for name in TEXTS},
        "packages": json.dumps(dict(about.packages), sort_keys=True),
        "subjects": json.dumps(list(about.subjects)),
        "selection": json.dumps(about.selection.to_json(), sort_keys=True),
        "complete": run.complete,
        "unresolved": _valid(run.unresolved),
        "finished": run.finished,
    }


def _runs(path: Path, columns: list[str], cells: Collection[str] | None) -> Iterator[CellRun]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    chosen = None if cells is None else [("cell", "in", list(cells))]
    try:
        with pq.ParquetFile(path) as file:
            _expect_schema(file.schema_arrow)
            # A file of an earlier release lacks the columns that came later; its records keep the defaults.
            there = [name for name in columns if name in file.schema_arrow.names]
        table = pq.read_table(path, columns=there, filters=chosen, partitioning=None, page_checksum_verification=True)
        if "id" in there:
            expect_sound(table.filter(pc.is_valid(table["id"])), NUMBER)
        columns_of = table.to_pydict()
        expect_cells(columns_of["cell"])
        yield from _grouped(columns_of)
    except OSError as error:
        if not isinstance(error, pa.ArrowException) and error.errno is not None:
            raise UserError(f"{path} cannot be read: {error.strerror}", f"ls -l {path}") from None
        raise _torn(path, error) from None
    except (pa.ArrowException, MalformedError, KeyError, TypeError, ValueError) as error:
        raise _torn(path, error) from None


def _expect_schema(schema: pa.Schema) -> None:
    found = (schema.metadata or {}).get(SCHEMA_KEY, b"none").decode()
    if found not in map(str, READABLE):
        raise MalformedError(f"its schema is {found}, and this kvconform reads schema {SCHEMA}")
    missing = {NUMBER, *RUN_COLUMNS} - set(schema.names)
    if missing:
        raise MalformedError(f"it has no column {', '.join(sorted(missing))}")
    # The names of columns are outside the pages, so no checksum covers them: a damaged name is one that nobody knows,
    # and its column would be taken for one that an earlier release did not write.
    unknown = set(schema.names) - {NUMBER, *RUN_COLUMNS, *CHECK_COLUMNS}
    if unknown:
        raise MalformedError(
            f"it has a column {', '.join(map(repr, sorted(unknown)))} that this kvconform does not know"
        )


def _grouped(columns: dict[str, list[Any]]) -> Iterator[CellRun]:
    numbers = columns.pop(NUMBER)
    if not numbers:
        return
    starts = [at for at, number in enumerate(numbers) if at == 0 or number != numbers[at - 1]]
    about = {name: columns[name] for name in RUN_COLUMNS}
    checks = {name: columns[name] for name in CHECK_COLUMNS if name in columns}
    for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        records = tuple(_records({name: values[start:end] for name, values in checks.items()}))
        yield _run({name: values[start] for name, values in about.items()}, records)


def _records(columns: dict[str, list[Any]]) -> Iterator[Record]:
    if not columns or columns["id"] == [None]:
        return
    for values in zip(*columns.values(), strict=True):
        given = dict(zip(columns, values, strict=True))
        if given.get("reproduce", "") is None:
            given["reproduce"] = usual_command(given["subject"], given["id"])
        yield Record(**given)


def _run(about: dict[str, Any], records: tuple[Record, ...]) -> CellRun:
    environment = Environment(
        cell=about["cell"],
        **{name: about[name] for name in TEXTS},
        packages=json.loads(about["packages"]),
        subjects=tuple(json.loads(about["subjects"])),
        selection=Selection.from_json(json.loads(about["selection"])),
    )
    return CellRun(environment, records, about["complete"], about["unresolved"], about["finished"])


def _valid(value: Any) -> Any:
    """A text that UTF-8 can hold: a message may quote half a surrogate pair."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def _torn(path: Path, error: Exception) -> UserError:
    words = " ".join(str(error).split())
    return UserError(f"{path} is cut off or no file of records: {words}", f"git checkout -- {path}")
