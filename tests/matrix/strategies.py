"""Runs as hypothesis draws them."""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st

from matrix.cells.cell import Cell
from matrix.records.lines import STATUSES, CellRun, Environment, Record, Selection, usual_command

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CELLS = st.builds(
    Cell,
    torch=st.sampled_from(["2.5", "2.10", "2.5.1", "nightly"]),
    transformers=st.sampled_from(["4.53", "5.23", "main"]),
    device=st.sampled_from(["cpu", "cuda"]),
)
ENVIRONMENTS = st.builds(
    Environment,
    cell=CELLS.map(lambda cell: cell.id),
    platform=st.none() | TEXT,
    gpu=st.none() | TEXT,
    packages=st.dictionaries(TEXT, TEXT, max_size=3),
    digest=st.none() | TEXT,
    subjects=st.lists(TEXT, max_size=3).map(tuple),
    selection=st.builds(Selection, st.none() | TEXT, st.lists(TEXT, max_size=2).map(tuple)),
    started=st.none() | TEXT,
)
RECORDS = st.builds(
    Record,
    subject=TEXT,
    id=TEXT,
    category=TEXT,
    status=st.sampled_from([name for name in STATUSES if name != "missing"]),
    seconds=st.floats(0, 1e6),
    message=TEXT,
    reproduce=TEXT,
    sources=TEXT,
    asked=TEXT,
).flatmap(lambda one: st.sampled_from([one, dataclasses.replace(one, reproduce=usual_command(one.subject, one.id))]))
ANSWERS = st.lists(RECORDS, unique_by=lambda record: (record.subject, record.id), max_size=4).map(tuple)
RUNS = st.builds(
    CellRun,
    environment=ENVIRONMENTS,
    records=ANSWERS,
    complete=st.booleans(),
    finished=st.none() | TEXT,
) | st.builds(CellRun, environment=ENVIRONMENTS, complete=st.just(True), unresolved=TEXT, finished=st.none() | TEXT)
"""With checks, without, and without an environment."""
