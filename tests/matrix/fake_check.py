"""Stands in for `python -m kvconform check`: streams a record, and misbehaves as told.

usage: fake_check.py RECORD CELL MODE [EARLIER]...

Each check that is really asked is a line of `asked.log` beside the folder of the record. The mode `carry` takes over
what the earlier records answered, and asks one check after the other slowly; `carry-hang` does not come to the end, and
`carry-hang-once` does not unless there is an earlier record. `wait-SECONDS` takes that long.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

CHECKS = ["round-trip/one", "round-trip/two", "export/three"]
CODES = {"usage": 2, "empty": 3, "mismatch": 4}


def main(record: str, cell: str, mode: str, *earlier: str) -> int:
    if mode in CODES:
        return CODES[mode]
    if mode == "silent":
        return 1
    time.sleep(0.2 if mode == "slow" else 0)
    with Path(record).open("w", encoding="utf-8") as file:
        asked = Path(record).parent.with_name("asked.log")
        return stream(file, cell, mode, asked, answered(earlier) if mode.startswith("carry") else {})


def answered(earlier: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The answers of earlier records, the newest first; the last line of one may be torn."""
    found: dict[str, dict[str, Any]] = {}
    for path in earlier:
        for text in Path(path).read_text(encoding="utf-8").splitlines():
            line = json.loads(text) if text.endswith("}") else {"kind": "torn"}
            if line["kind"] == "check":
                found.setdefault(line["id"], {**line, "asked": line.get("asked") or "2026-11-21T20:00:00Z"})
    return found


def stream(file: TextIO, cell: str, mode: str, asked: Path, taken: dict[str, dict[str, Any]]) -> int:
    digest = "other" if mode == "old" else "DIGEST"
    write(file, header(cell, digest))
    write(file, {"kind": "planned", "checks": [["kvconform", name] for name in CHECKS]})
    counts: dict[str, int] = {}
    try:
        for line in taken.values():
            write(file, line)
            counts[line["status"]] = counts.get(line["status"], 0) + 1
        for name in CHECKS:
            if name in taken:
                continue
            write(file, {"kind": "started", "subject": "kvconform", "id": name})
            time.sleep(0.05 if mode == "carry" else 0)
            time.sleep(float(mode.removeprefix("wait-")) / len(CHECKS) if mode.startswith("wait-") else 0)
            hangs = mode in {"hang", "carry-hang"} or (mode == "carry-hang-once" and not taken)
            if hangs and name == CHECKS[1]:
                time.sleep(60)
            if mode == "die" and name == CHECKS[1]:
                return 134
            status = "fail" if mode == "regress" and name == CHECKS[2] else "pass"
            counts[status] = counts.get(status, 0) + 1
            with asked.open("a", encoding="utf-8") as log:
                log.write(f"{cell} {name}\n")
            write(file, {**check(name, status, "x" * (2_000_000 if mode == "huge" else 0)), "sources": digest})
    except KeyboardInterrupt:
        # The real suite waits for its workers.
        time.sleep(0.5 if mode == "carry-hang" else 0)
        write(file, end("interrupted", counts))
        return 130
    write(file, end("complete", counts))
    return 1 if "fail" in counts else 0


def header(cell: str, digest: str) -> dict[str, Any]:
    torch, transformers, python, device = cell.removeprefix("torch").replace("tf", "").replace("py", "").split("-")
    return {
        "kind": "cell",
        "schema": 2,
        "cell": cell,
        "torch": f"{torch}.1",
        "transformers": f"{transformers}.3",
        "python": f"{python}.7",
        "platform": "Linux-x86_64",
        "device": device,
        "gpu": None,
        "packages": {},
        "commit": None,
        "digest": digest,
        "subjects": ["kvconform", "native", "kvconform with patches"],
        "selection": {"keyword": None, "categories": []},
        "started": "2026-11-21T23:59:00Z",
    }


def check(name: str, status: str, message: str) -> dict[str, Any]:
    return {
        "kind": "check",
        "subject": "kvconform",
        "id": name,
        "category": name.partition("/")[0],
        "status": status,
        "seconds": 0.1,
        "message": message,
        "reproduce": f"python -m kvconform check --subject kvconform -k '{name}'",
    }


def end(outcome: str, counts: dict[str, int]) -> dict[str, Any]:
    return {"kind": "end", "finished": "2026-11-21T23:59:09Z", "outcome": outcome, "counts": counts}


def write(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line, sort_keys=True) + "\n")
    file.flush()


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
