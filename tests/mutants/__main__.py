"""``python -m mutants``: every planted subject must be noticed by at least one check.

Exit codes: 0 all were noticed, 1 some survived, otherwise what ``check`` ended with.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from kvconform_conformance.runner import cli
from kvconform_conformance.runner.recorder import FAILED

PREFIX = "mutants.planted:"
# Importing in a process of its own says nothing about mutants and costs seconds each; repeats kill nothing more.
LEFT_OUT = ("import-registers-nothing", "twice", "random", "bfloat16", "three-layers", "token-by-token", "one-below")
FAST = ("registration", "round-trip", "behaviour", "device")


def main(argv: list[str]) -> int:
    """Run the mutants and print who noticed whom, and which checks noticed nothing."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--category", action="append", help=f"only this category; may repeat (default: {', '.join(FAST)})"
    )
    parser.add_argument("--mutant", action="append", help="only this mutant; may repeat")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(argv)
    from mutants.planted import MUTANTS

    names = options.mutant or [name for name in MUTANTS if name != "none"]
    with tempfile.TemporaryDirectory(prefix="kvconform-mutants-") as folder:
        record = Path(folder) / "record.jsonl"
        code = _check(["none", *names], options.category or list(FAST), options.jobs, record)
        if code not in (cli.OK, cli.FAILURES):
            return code
        lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    return _report(names, [line for line in lines if line["kind"] == "check"])


def _check(names: list[str], categories: list[str], jobs: int, record: Path) -> int:
    arguments = [f"--subject={PREFIX}{name}" for name in names] + [f"--category={category}" for category in categories]
    arguments += [
        "-k",
        " and ".join(f"not {name}" for name in LEFT_OUT),
        "--device",
        "cpu",
        "--jobs",
        str(jobs),
        "--record",
        str(record),
        "--quiet",
    ]
    return cli.main(arguments)


def _report(names: list[str], checks: list[dict[str, str]]) -> int:
    failing: dict[str, set[str]] = defaultdict(set)
    for check in checks:
        if check["status"] in FAILED:
            failing[check["subject"].removeprefix(PREFIX)].add(check["id"])
    kills = {name: sorted(failing[name] - failing["none"]) for name in names}
    for name, killers in kills.items():
        shown = ", ".join(killers[:3]) + (f" and {len(killers) - 3} more" if len(killers) > 3 else "")
        print(f"{'killed' if killers else 'SURVIVED':9} {name:28} {shown}")  # noqa: T201
    if failing["none"] and len(failing["none"]) == len(
        {check["id"] for check in checks if check["status"] not in ("na", "skip")}
    ):
        print("\nerror: the registration without a mutant fails every check: nothing was measured")  # noqa: T201
        return 1
    used = set().union(*kills.values()) if kills else set()
    idle = sorted({check["id"] for check in checks if check["status"] not in ("na", "skip")} - used)
    survived = [name for name, killers in kills.items() if not killers]
    print(  # noqa: T201 - a command's output
        f"\n{len(names) - len(survived)} of {len(names)} mutants killed; {len(idle)} checks killed none:",
        ", ".join(idle) or "-",
    )
    print(f"failing without a mutant (no kill counts there): {', '.join(sorted(failing['none'])) or 'none'}")  # noqa: T201
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
