"""What the whole site costs from a large file of records, beside reading and counting the same file.

    python benchmarks/report.py                    456 cells, three subjects: 1.64 million records
    python benchmarks/report.py --lanes 4          6.6 million

The records look like the published ones: their checks, messages and statuses, spread over every pair. Prints seconds,
the peak of memory, and how many times as long the site takes as pandas takes to read and count the same Parquet file.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

CHECKS = 1200
SUBJECTS = ("kvconform", "kvconform with patches", "native")


def make(path: Path, lanes: int, checks: int) -> int:
    """Write the records; returns how many there are."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from matrix.cells import axes as axes_module
    from matrix.cells.cell import Cell
    from matrix.judge.table import table_of_file
    from matrix.records import parquet
    from matrix.records.lines import STATUSES

    axes, rng = axes_module.load(), np.random.default_rng(0)
    pattern = table_of_file(Path(__file__).parent.parent / "reports" / "records.parquet")
    assert pattern is not None
    names = pattern.names("id")
    ids = [
        names[number % len(names)] + (f"-{number // len(names)}" if number >= len(names) else "")
        for number in range(checks)
    ]
    messages = [text for text in pattern.names("message") if text][:700]
    cells = [
        Cell(torch, release, python, "cpu")
        for python in ("3.11", "3.12", "3.13", "3.14")[:lanes]
        for torch in axes.known("torch")
        for release in axes.known("transformers")
    ]
    cells.sort(key=lambda cell: cell.id)
    header = parquet.read_headers(Path(__file__).parent.parent / "reports" / "records.parquet")[0].environment
    per_cell = len(SUBJECTS) * checks
    total = per_cell * len(cells)

    def dictionary(codes: np.ndarray, texts: list[str]) -> pa.DictionaryArray:  # type: ignore[type-arg]
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(texts, pa.string()))

    run_of = np.repeat(np.arange(len(cells)), per_cell)
    subject = np.tile(np.repeat(np.arange(len(SUBJECTS)), checks), len(cells))
    check = np.tile(np.arange(checks), len(cells) * len(SUBJECTS))
    # A check answers alike in most releases, as in the published records; one in a hundred differs.
    chance = np.where(rng.random(total) < 0.01, rng.random(total), rng.random((len(SUBJECTS), checks))[subject, check])
    wrong = np.where(subject == SUBJECTS.index("native"), chance < 0.45, chance < 0.01)
    status = np.where(
        wrong, STATUSES.index("fail"), np.where(chance > 0.85, STATUSES.index("na"), STATUSES.index("pass"))
    )
    # A published cell has some sixty causes a subject.
    message = np.where(wrong, 1 + (check % 60 * 7 + run_of // 37) % len(messages), 0)
    categories = sorted({name.partition("/")[0] for name in ids})
    category = np.array([categories.index(name.partition("/")[0]) for name in ids])[check]
    columns = {
        "run": pa.array(run_of.astype(np.int32)),
        "cell": dictionary(run_of, [cell.id for cell in cells]),
        "torch": dictionary(run_of, [f"{cell.torch}.0+cpu" for cell in cells]),
        "transformers": dictionary(run_of, [f"{cell.transformers}.0" for cell in cells]),
        "python": dictionary(run_of, [f"{cell.python}.1" for cell in cells]),
        "packages": dictionary(run_of * 0, [json.dumps(dict(header.packages), sort_keys=True)]),
        "subjects": dictionary(run_of * 0, [json.dumps(list(SUBJECTS))]),
        "selection": dictionary(run_of * 0, [json.dumps(header.selection.to_json())]),
        "complete": pa.array(np.ones(total, bool)),
        "subject": dictionary(subject, list(SUBJECTS)),
        "id": dictionary(check, ids),
        "category": dictionary(category, categories),
        "status": dictionary(status, list(STATUSES)),
        "seconds": pa.array(np.round(rng.random(total), 2)),
        "message": dictionary(message, ["", *messages]),
        "reproduce": dictionary(check, [f"python -m kvconform check -k '{name}'" for name in ids]),
    }
    for name in (*parquet.RUN_COLUMNS, *parquet.CHECK_COLUMNS):
        if name not in columns:
            value = getattr(header, name, None)
            columns[name] = dictionary(run_of * 0, [value]) if value else pa.nulls(total, pa.string())
    table = pa.table(columns).replace_schema_metadata({parquet.SCHEMA_KEY: str(parquet.SCHEMA)})
    pq.write_table(table, path, compression="zstd", row_group_size=1_000_000, write_page_checksum=True)
    return total


def count(path: Path) -> float:
    """Seconds that pandas takes to read the file and count its statuses by cell and subject."""
    import pandas as pd
    import pyarrow.parquet as pq

    start = time.perf_counter()
    names = ["cell", "subject", "category", "status"]
    frame = pq.read_table(path, columns=names, read_dictionary=names).unify_dictionaries().to_pandas()
    counted = frame.groupby(names, observed=True).size()
    assert isinstance(counted, pd.Series)
    assert int(counted.sum()) == len(frame)
    return time.perf_counter() - start


def build(path: Path, folder: Path) -> dict[str, float]:
    """Seconds and the peak of memory (GB) of the whole site."""
    from matrix.render import report
    from matrix.render.site import build as site

    start = time.perf_counter()
    found = report.load(path)
    loaded = time.perf_counter()
    site.write(found, folder)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"load and judge": loaded - start, "site": done - loaded, "all": done - start, "peak GB": peak}


def main() -> None:
    """Make the records, build the site in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lanes", type=int, default=1, choices=range(1, 5), help="Pythons a pair (1)")
    parser.add_argument("--checks", type=int, default=CHECKS, help=f"checks a subject ({CHECKS})")
    parser.add_argument("--build", nargs=2, metavar=("FILE", "DIR"), help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.build:
        print(json.dumps(build(Path(found.build[0]), Path(found.build[1]))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "records.parquet"
        total = make(path, found.lanes, found.checks)
        counted = min(count(path) for _ in range(3))
        command = [sys.executable, __file__, "--build", str(path), str(Path(temporary) / "site")]
        took = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        pages = sum(1 for _ in (Path(temporary) / "site").rglob("index.html"))
    print(f"{total} records, {pages} pages; reading and counting takes {counted:.2f} s")
    for name in ("load and judge", "site", "all"):
        print(f"{name:16} {took[name]:6.1f} s   {took[name] / counted:6.1f} times as long")
    print(f"peak of memory   {took['peak GB']:6.2f} GB")


if __name__ == "__main__":
    main()
