"""Synthetic runs: what the commands that judge and publish are tested with."""

from __future__ import annotations

import json
import random
from pathlib import Path

from matrix.records.lines import CellRun, Environment, Record, Selection, Status, dump

CATEGORIES = (
    "registration",
    "round-trip",
    "behaviour",
    "export",
    "dynamic-shape",
    "archive",
    "device",
)
SMOKE = (("2.5", "4.53"), ("2.6", "4.48"), ("2.8", "4.55"), ("2.9", "4.57"), ("2.13", "5.5"), ("2.15", "5.23"))


def environment(
    torch: str = "2.5",
    transformers: str = "4.53",
    *,
    subjects: tuple[str, ...] = ("kvconform", "native"),
    selection: Selection = Selection(),  # noqa: B008 - frozen
    started: str = "2026-11-21T10:00:00Z",
    digest: str = "d" * 64,
) -> Environment:
    return Environment(
        cell=f"torch{torch}-tf{transformers}-py3.11-cpu",
        torch=f"{torch}.1+cu124",
        transformers=f"{transformers}.3",
        python="3.11.7",
        platform="Linux-x86_64",
        device="cpu",
        packages={"torch": f"{torch}.1", "transformers": f"{transformers}.3", "numpy": "2.3.1"},
        commit="0123456789abcdef",
        digest=digest,
        subjects=subjects,
        selection=selection,
        started=started,
    )


def record(
    name: str = "export/dynamic[strict]",
    status: Status = "pass",
    subject: str = "kvconform",
    message: str = "",
    sources: str = "",
) -> Record:
    reproduce = f"python -m kvconform check --subject {subject} -k '{name}'"
    return Record(subject, name, name.partition("/")[0], status, 0.5, message, reproduce, sources)


def run(*records: Record, complete: bool = True, unresolved: str | None = None, **about: object) -> CellRun:
    finished = "2026-11-21T10:01:00Z" if complete else None
    return CellRun(environment(**about), records, complete, unresolved, finished)  # type: ignore[arg-type]


def cell_run(torch: str, transformers: str, seed: int = 0) -> CellRun:
    """A whole run that looks like a real one: ours mostly passes, the native registration fails a third."""
    chance = random.Random(f"{torch}-{transformers}-{seed}")
    records = []
    for category in CATEGORIES:
        for number in range(6):
            name = f"{category}/check-{number}[two-layers]"
            statuses: list[Status] = ["pass"] * 30 + ["na"] * 2 + ["skip"]
            records.append(record(name, chance.choice(statuses)))
            statuses = ["pass"] * 6 + ["fail"] * 3 + ["error", "na"]
            status = chance.choice(statuses)
            text = {"fail": "sequence length is 3, expected 9 [DynamicCache, sliding window 4, after 9 tokens]"}
            text["error"] = "TypeError: <lambda>() missing 1 required positional argument: 'context'"
            text["na"] = "the release has no DynamicSlidingWindowLayer"
            records.append(record(name, status, "native", text.get(status, "")))
    return run(*records, torch=torch, transformers=transformers)


def smoke_runs() -> list[CellRun]:
    return [cell_run(torch, transformers) for torch, transformers in SMOKE]


def write(folder: Path, *runs: CellRun) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for each in runs:
        (folder / f"{each.cell}.jsonl").write_text(dump(each), encoding="utf-8")
    return folder


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
