"""Every record of many runs as one table, and all of them judged at once.

`matrix.judge.verdicts` says what one record means and judges one run; this module gives the same verdicts for millions
of records by working on the codes of categories: a baseline row is compared with each check id and each cell once, not
with each record. The tests hold the two against each other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from matrix.judge.aggregate import count
from matrix.judge.baseline import OWN, Baseline, BaselineRow, glob
from matrix.judge.tally import Tally
from matrix.judge.verdicts import Judgement, Verdict, is_opt_in, unmatched
from matrix.records.lines import NOT_ASKED, STATUSES, WRONG, CellRun, Record

TEXTS = ("cell", "subject", "id", "category", "status", "message", "reproduce")
"""The columns that are categories."""
JUDGEMENTS: tuple[Judgement, ...] = ("ok", "known", "finding", "regressed", "fixed")
_OK, _KNOWN, _FINDING, _REGRESSED, _FIXED = range(5)
UNPLANNED = "never planned here, though other cells with the same suite planned it"


@dataclass(frozen=True)
class Table:
    """Runs without their records, and the records of all of them in one frame.

    Attributes:
        runs: the runs in the order of the frame, `records` empty.
        frame: one row a record, the rows of a run together; the columns of `TEXTS` and `seconds`.
        earliest: by cell, when the oldest of the answers was asked that its run took over from an earlier one.
    """

    runs: tuple[CellRun, ...]
    frame: pd.DataFrame
    earliest: Mapping[str, str] = field(default_factory=dict)

    def codes(self, name: str) -> npt.NDArray[Any]:
        """A column as numbers into its `names`."""
        return np.asarray(self.frame[name].cat.codes)

    def names(self, name: str) -> list[str]:
        """The different texts of a column."""
        return list(self.frame[name].cat.categories)

    @functools.cached_property
    def bounds(self) -> npt.NDArray[np.intp]:
        """Where the rows of each run begin, and the end of the last."""
        order = [self._cells.get(run.cell, -1) for run in self.runs]
        lengths = np.bincount(self.codes("cell"), minlength=len(self._cells)) if len(self._cells) else np.zeros(0, int)
        return np.concatenate([[0], np.cumsum([lengths[code] if code >= 0 else 0 for code in order])]).astype(np.intp)

    @functools.cached_property
    def _cells(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.names("cell"))}

    def records(self, positions: Iterable[int]) -> list[Record]:
        """Some rows as records."""
        names = {name: self.names(name) for name in TEXTS}
        columns = {name: self.codes(name) for name in TEXTS}
        seconds = self.frame["seconds"].to_numpy()
        texts = [name for name in TEXTS if name != "cell"]
        return [
            Record(**{name: names[name][columns[name][at]] for name in texts}, seconds=float(seconds[at]))
            for at in positions
        ]


def table_of(runs: Iterable[CellRun]) -> Table:
    """Runs at hand as a table."""
    runs = list(runs)
    records = [record for run in runs for record in run.records]
    data: dict[str, Any] = {"cell": categories([run.cell for run in runs for _ in run.records])}
    for name in TEXTS[1:]:
        data[name] = categories([getattr(record, name) for record in records], STATUSES if name == "status" else ())
    data["seconds"] = np.fromiter((record.seconds for record in records), np.float32, len(records))
    headers = tuple(dataclasses.replace(run, records=()) for run in runs)
    taken = {run.cell: [record.asked for record in run.records if record.asked] for run in runs}
    return Table(headers, pd.DataFrame(data), {cell: min(asked) for cell, asked in taken.items() if asked})


def table_of_file(path: Path) -> Table | None:
    """A published Parquet file as a table, without a Python object a record; None where a cell has several runs.

    Raises:
        UserError: the file is torn, or no file of records.
    """
    from matrix.records import parquet

    runs, checks = parquet.read_columns(path)
    if len({run.cell for run in runs}) < len(runs):
        return None
    lengths = np.bincount(checks[parquet.NUMBER].to_numpy(), minlength=len(runs))
    cells = pd.Index([run.cell for run in runs], dtype=object)
    data: dict[str, Any] = {"cell": pd.Categorical.from_codes(np.repeat(np.arange(len(runs)), lengths), cells)}
    for name in TEXTS[1:]:
        column = checks[name].combine_chunks()
        if not isinstance(column, pa.DictionaryArray):
            column = column.chunk(0) if column.num_chunks else pa.array([], pa.string()).dictionary_encode()
        codes, texts = column.indices.to_numpy(zero_copy_only=False), column.dictionary.to_pylist()
        if name == "status":
            order = np.array([STATUSES.index(text) for text in texts] or [0], np.int8)
            codes, texts = order[codes], list(STATUSES)
        data[name] = pd.Categorical.from_codes(codes, pd.Index(texts, dtype=object))
    data["seconds"] = checks["seconds"].to_numpy().astype(np.float32)
    return Table(tuple(runs), pd.DataFrame(data), _earliest(runs, checks))


def _earliest(runs: Sequence[CellRun], checks: pa.Table) -> dict[str, str]:
    """`Table.earliest` of columns; a file of an earlier release has no such column."""
    from matrix.records import parquet

    if "asked" not in checks.column_names:
        return {}
    asked = pc.cast(checks["asked"], pa.string())
    taken = pc.greater(pc.utf8_length(asked), 0)
    columns = pa.table({"run": checks[parquet.NUMBER].filter(taken), "asked": asked.filter(taken)})
    rows = columns.group_by("run").aggregate([("asked", "min")]).to_pylist()
    return {runs[row["run"]].cell: row["asked_min"] for row in rows}


def categories(values: Sequence[str], first: Sequence[str] = ()) -> pd.Categorical:
    """Texts as codes and the different texts, in the order in which they come up after those of `first`.

    The texts stay Python's: a message may hold half a surrogate pair, which pandas' own texts cannot.
    """
    seen = {text: number for number, text in enumerate(first)}
    codes = np.fromiter((seen.setdefault(text, len(seen)) for text in values), np.int32, len(values))
    return pd.Categorical.from_codes(codes, pd.Index(list(seen), dtype=object))


def with_unplanned(table: Table) -> Table:
    """The table, each whole run with a `missing` record for every check that its suite planned in another cell.

    A suite plans the same checks on every release and answers n/a where a release lacks something. A cell that planned
    less lost checks while they were collected, and without this its remaining passes would add up to a tick. Runs
    belong to the same suite when they tell the same digest; one that tells none is left as it is.
    """
    ids, subjects = table.codes("id"), table.codes("subject")
    names, n_subjects = table.names("id"), table.names("subject")
    suites: dict[str, list[int]] = {}
    for number, run in enumerate(table.runs):
        if run.whole and run.environment.digest is not None:
            suites.setdefault(run.environment.digest, []).append(number)
    category = np.zeros(len(names), np.intp)
    category[ids] = table.codes("category")
    lost: list[tuple[int, int, int]] = []
    for numbers in suites.values():
        spans = [slice(table.bounds[number], table.bounds[number + 1]) for number in numbers]
        plan = np.unique(np.concatenate([ids[span] for span in spans]))
        for number, span in zip(numbers, spans, strict=True):
            for subject in table.runs[number].environment.subjects:
                code = n_subjects.index(subject) if subject in n_subjects else -1
                missing = np.setdiff1d(plan, ids[span][subjects[span] == code], assume_unique=False)
                lost += [(number, code, int(one)) for one in missing] if code >= 0 else []
    return _appended(table, lost, category) if lost else table


def _appended(table: Table, lost: Sequence[tuple[int, int, int]], category: npt.NDArray[np.intp]) -> Table:
    """The table with further `missing` rows, the rows of a run together again."""
    names = {name: table.names(name) for name in TEXTS}
    numbers, subjects, ids = (np.array(column, np.intp) for column in zip(*lost, strict=True))
    columns = {
        "cell": [table.runs[number].cell for number in numbers],
        "subject": [names["subject"][code] for code in subjects],
        "id": [names["id"][code] for code in ids],
        "category": [names["category"][category[code]] for code in ids],
        "status": ["missing"] * len(lost),
        "message": [UNPLANNED] * len(lost),
        "reproduce": [""] * len(lost),
    }
    data: dict[str, Any] = {}
    for name, values in columns.items():
        more = categories(values, names[name])
        data[name] = pd.Categorical.from_codes(np.concatenate([table.codes(name), more.codes]), more.categories)
    data["seconds"] = np.concatenate([table.frame["seconds"], np.zeros(len(lost), np.float32)])
    frame = pd.DataFrame(data)
    run_of = np.concatenate([np.repeat(np.arange(len(table.runs)), np.diff(table.bounds)), numbers])
    return Table(table.runs, frame.iloc[np.argsort(run_of, kind="stable")].reset_index(drop=True), table.earliest)


@dataclass(frozen=True)
class JudgedTable:
    """A table with its verdicts.

    Attributes:
        table: what was judged.
        verdict: for each row, a number into `JUDGEMENTS`.
        row: for each row, the number of the baseline row that speaks about it, or -1.
        rows: the baseline's rows.
        stale: the rows that name no check of a whole run they cover, by the run's number.
        unused: the rows that explain nothing in any run.
    """

    table: Table
    verdict: npt.NDArray[np.int8]
    row: npt.NDArray[np.int16]
    rows: tuple[BaselineRow, ...]
    stale: dict[int, list[BaselineRow]] = field(default_factory=dict)
    unused: tuple[BaselineRow, ...] = ()

    def span(self, number: int) -> slice:
        """The rows of a run."""
        return slice(int(self.table.bounds[number]), int(self.table.bounds[number + 1]))

    def tallies(self) -> dict[str, dict[tuple[str, str], Tally]]:
        """By cell, the tally of each subject in each category."""
        found: dict[str, dict[tuple[str, str], Tally]] = {}
        frame = self.table.frame[["cell", "subject", "category", "status"]].assign(explained=self.verdict == _KNOWN)
        for (cell, subject, category), tally in count(frame).items():
            found.setdefault(cell, {})[subject, category] = tally
        return found

    def verdicts(self, number: int, subject: str | None = None) -> list[Verdict]:
        """The verdicts of a run that need words: everything but ok, stale rows last."""
        span = self.span(number)
        wanted = self.verdict[span] != _OK
        if subject is not None:
            wanted &= self._is(subject)[span]
        found = list(self._verdicts(np.flatnonzero(wanted) + span.start))
        return found + [unmatched(row) for row in self.stale.get(number, []) if subject in (None, row.subject)]

    def not_asked(self, number: int, subject: str) -> list[Verdict]:
        """The verdicts of a run's checks that said nothing: n/a or skipped."""
        span = self.span(number)
        silent = np.isin(self.table.codes("status")[span], [STATUSES.index(name) for name in NOT_ASKED])
        return list(self._verdicts(np.flatnonzero(silent & self._is(subject)[span]) + span.start))

    def _is(self, subject: str) -> npt.NDArray[np.bool_]:
        names = self.table.names("subject")
        found: npt.NDArray[np.bool_] = self.table.codes("subject") == (names.index(subject) if subject in names else -2)
        return found

    def _verdicts(self, positions: npt.NDArray[np.intp]) -> Iterator[Verdict]:
        for at, record in zip(positions, self.table.records(positions), strict=True):
            number = self.row[at]
            yield Verdict(record, JUDGEMENTS[self.verdict[at]], self.rows[number] if number >= 0 else None)


def judge_table(table: Table, baseline: Baseline) -> JudgedTable:
    """Judge every record; what `matrix.judge.verdicts.judge` says of each run, for all of them at once."""
    naming = _Naming(table, baseline.rows)
    status = table.codes("status")
    silent = np.isin(status, [STATUSES.index(name) for name in NOT_ASKED])
    wrong = np.isin(status, [STATUSES.index(name) for name in WRONG])
    passed = status == STATUSES.index("pass")
    row = np.where(silent, -1, np.where(naming.agreeing >= 0, naming.agreeing, naming.first)).astype(np.int16)
    subjects, codes = table.names("subject"), table.codes("subject")
    ours = np.isin(codes, [subjects.index(name) for name in OWN if name in subjects])
    # Ours with patches may pass what a row of ours names.
    of_row = np.array([subjects.index(each.subject) if each.subject in subjects else -2 for each in baseline.rows], int)
    healed = passed & (row >= 0)
    healed[healed] = of_row[row[healed]] != codes[healed]
    row[healed] = -1
    verdict = np.full(len(status), _OK, np.int8)
    verdict[passed & (row >= 0)] = _FIXED
    verdict[wrong & (naming.agreeing >= 0)] = _KNOWN
    verdict[wrong & (naming.agreeing < 0)] = np.where((row >= 0) | ours, np.int8(_REGRESSED), np.int8(_FINDING))[
        wrong & (naming.agreeing < 0)
    ]
    stale = naming.stale()
    used = {int(number) for number in np.unique(row)} | {
        baseline.rows.index(each) for rows in stale.values() for each in rows
    }
    unused = tuple(baseline.rows[number] for number in sorted(naming.asked - used))
    return JudgedTable(table, verdict, row, baseline.rows, stale, unused)


class _Naming:
    """Which baseline rows name which records.

    `agreeing` is the first row that names a record and its status, `first` the first that names the record; -1: none.
    """

    def __init__(self, table: Table, rows: Sequence[BaselineRow]) -> None:
        self.table, self.rows = table, rows
        length = len(table.frame)
        self.agreeing = np.full(length, -1, np.int16)
        self.first = np.full(length, -1, np.int16)
        self.covers = np.array([[row.covers(run.environment) for run in table.runs] for row in rows], bool).reshape(
            len(rows), len(table.runs)
        )
        self.names_any = np.zeros_like(self.covers)
        for number in range(len(rows)):
            self._mark(number)

    @functools.cached_property
    def _run_of(self) -> npt.NDArray[np.intp]:
        return np.repeat(np.arange(len(self.table.runs)), np.diff(self.table.bounds))

    @functools.cached_property
    def _of_subject(self) -> dict[str, npt.NDArray[np.intp]]:
        codes = self.table.codes("subject")
        return {name: np.flatnonzero(codes == code) for code, name in enumerate(self.table.names("subject"))}

    def _mark(self, number: int) -> None:
        row = self.rows[number]
        about = [at for subject, at in self._of_subject.items() if row.is_about(subject)]
        if not about or not self.covers[number].any():
            return
        at = np.concatenate(about)
        pattern = glob(row.check)
        matches = np.array([pattern.fullmatch(name) is not None for name in self.table.names("id")], bool)
        at = at[matches[self.table.codes("id")[at]] & self.covers[number][self._run_of[at]]]
        self.names_any[number, np.unique(self._run_of[at])] = True
        fresh = at[self.first[at] < 0]
        self.first[fresh] = number
        expected = np.array([name in row.status for name in STATUSES], bool)
        same = at[expected[self.table.codes("status")[at]] & (self.agreeing[at] < 0)]
        self.agreeing[same] = number

    @functools.cached_property
    def _asks(self) -> npt.NDArray[np.bool_]:
        """Whether a whole run was asked about the subject and category of a row that covers it."""
        asked = [
            [run.whole and row.subject in run.environment.subjects and not is_opt_in(row) for run in self.table.runs]
            for row in self.rows
        ]
        found: npt.NDArray[np.bool_] = np.array(asked, bool).reshape(self.covers.shape) & self.covers
        return found

    @property
    def asked(self) -> set[int]:
        """The rows that some whole run could have used."""
        return {int(number) for number in np.flatnonzero(self._asks.any(axis=1))}

    def stale(self) -> dict[int, list[BaselineRow]]:
        """By run, the rows that cover it whole and name no check of it."""
        found: dict[int, list[BaselineRow]] = {}
        for number, run in np.argwhere(self._asks & ~self.names_any).tolist():
            found.setdefault(run, []).append(self.rows[number])
        return found
