"""``python -m mutants``: every wrong subject, planted or generated, must be noticed by some check, or be harmless.

For each mutant: killed, by which check, or survived. A survivor fails the run unless a row of harmless.toml says why it
is no fault; a row whose mutants are killed, or do not exist here, fails it too. Then the checks that killed nothing,
each asked of mutants until it kills one (with --idle), so that one which cannot fail is named.

Exit codes: 0 all were noticed or are harmless, 1 not so, 2 usage.
"""

from __future__ import annotations

import argparse
import fnmatch
import random
import sys
import time
from collections.abc import Sequence

from mutants import generated, harmless, running
from mutants.generated import Mutant
from mutants.running import Questions, Verdict


def main(argv: list[str]) -> int:
    """Run the mutants and print who noticed whom, and which checks noticed nothing."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutant", action="append", metavar="GLOB", help="only these, as attributes/*; may repeat")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, the same each time")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--idle", action="store_true", help="name the checks that kill no mutant at all (takes longer)")
    parser.add_argument("--list", action="store_true", help="list the mutants of this release, and run none")
    options = parser.parse_args(argv)
    known = running.prepare()
    chosen = _chosen(known, options.mutant, options.sample)
    if options.list:
        print(*chosen, sep="\n")  # noqa: T201 - a command's output
        return 0
    if not chosen:
        print(f"error: no mutant matches {options.mutant}: try --list", file=sys.stderr)  # noqa: T201
        return 2
    questions = Questions.of(running.suite(), running.right())
    if questions.failing:
        print("error: these fail without a mutant, and prove nothing:", *questions.failing, sep="\n  ")  # noqa: T201
        return 1
    return _run([known[name] for name in chosen], known, questions, options)


def _chosen(known: dict[str, Mutant], globs: Sequence[str] | None, sample: int | None) -> list[str]:
    names = [name for name in known if not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)]
    if sample is not None and sample < len(names):
        names = sorted(random.Random(sample).sample(names, sample))
    return names


def _run(chosen: list[Mutant], known: dict[str, Mutant], questions: Questions, options: argparse.Namespace) -> int:
    begun = time.monotonic()
    verdicts: list[Verdict] = []
    for verdict in running.judge_all(chosen, questions, options.jobs):
        verdicts.append(verdict)
        told = f"{verdict.killer} ({verdict.status})" if verdict.killer else ""
        print(f"{'killed' if verdict.killer else 'SURVIVED':9} {verdict.mutant:60} {told}", flush=True)  # noqa: T201
    survived = [verdict.mutant for verdict in verdicts if verdict.killer is None]
    problems = harmless.problems(harmless.load(), known, {verdict.mutant for verdict in verdicts}, set(survived))
    used = {verdict.killer for verdict in verdicts if verdict.killer}
    killed = len(verdicts) - len(survived)
    print(f"\n{killed} of {len(verdicts)} mutants killed in {time.monotonic() - begun:.0f} s by {len(used)} checks")  # noqa: T201
    print(f"{len(survived) - len(problems.unexplained)} survivors are harmless (tests/mutants/harmless.toml)")  # noqa: T201
    for line in problems.lines:
        print(f"error: {line}")  # noqa: T201
    if options.idle:
        _print_idle(questions, sorted(questions.ids - used), chosen, options.jobs)
    return 1 if problems.lines else 0


def _print_idle(questions: Questions, left: list[str], chosen: list[Mutant], jobs: int) -> None:
    idle = running.idle(questions, left, chosen, jobs)
    print(f"\n{len(idle)} of {len(questions.ids)} checks kill no mutant: {', '.join(idle) or '-'}")  # noqa: T201


if __name__ == "__main__":
    generated.require_forks()
    raise SystemExit(main(sys.argv[1:]))
