"""``python -m mutants``: every wrong subject, planted or generated, must be noticed by some check, or be harmless.

For each mutant: killed, by which check, or survived. A survivor fails the run unless a row of harmless.toml says why it
is no fault; a row whose mutants are killed, or do not exist here, fails it too. Then the checks that killed nothing,
each asked of mutants until it kills one (with --idle), so that one which cannot fail is named.

Each answer is saved under .cache/mutants/ when it comes: the same command goes on where it was stopped (--fresh asks
everything anew). Whoever changes the library, the suite or the mutants begins anew.

Exit codes: 0 all were noticed or are harmless, 1 not so, 2 usage, 130 stopped.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import random
import sys
import time
from collections.abc import Sequence

from mutants import generated, harmless, running
from mutants.generated import Mutant
from mutants.running import Questions, Verdict
from mutants.saved import Answers

STOPPED = 130
"""The exit code of a command that Ctrl-C ended."""


def main(argv: list[str]) -> int:
    """Run the mutants and print who noticed whom, and which checks noticed nothing."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutant", action="append", metavar="GLOB", help="only these, as attributes/*; may repeat")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, the same each time")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--idle", action="store_true", help="name the checks that kill no mutant at all (takes longer)")
    parser.add_argument("--list", action="store_true", help="list the mutants of this release, and run none")
    parser.add_argument("--fresh", action="store_true", help="ask everything anew, whatever was answered before")
    options = parser.parse_args(argv)
    known = running.prepare()
    chosen = _chosen(known, options.mutant, options.sample)
    if options.list:
        print(*chosen, sep="\n")  # noqa: T201 - a command's output
        return 0
    if not chosen:
        print(f"error: no mutant matches {options.mutant}: try --list", file=sys.stderr)  # noqa: T201
        return 2
    answers = Answers.here()
    if options.fresh:
        answers.forget()
    try:
        return _run([known[name] for name in chosen], known, answers, options)
    except WrongWithoutMutantError as error:
        print("error: these fail without a mutant, and prove nothing:", *error.args, sep="\n  ")  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {len(answers.read())} answers are in {answers.path}: run it again to go on", file=sys.stderr)  # noqa: T201
        return STOPPED


class WrongWithoutMutantError(Exception):
    """Checks fail for the registration that mutants are made from: one message each."""


@functools.cache
def _questions() -> Questions:
    """The checks, each asked once of the right registration: only where there is something to ask."""
    questions = Questions.of(running.suite(), running.right())
    if questions.failing:
        raise WrongWithoutMutantError(*questions.failing)
    return questions


def _chosen(known: dict[str, Mutant], globs: Sequence[str] | None, sample: int | None) -> list[str]:
    names = [name for name in known if not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)]
    if sample is not None and sample < len(names):
        names = sorted(random.Random(sample).sample(names, sample))
    return names


def _run(chosen: list[Mutant], known: dict[str, Mutant], answers: Answers, options: argparse.Namespace) -> int:
    begun = time.monotonic()
    verdicts: list[Verdict] = []
    for verdict in answers.judge_all(chosen, _questions, options.jobs):
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
        _print_idle(used, chosen, answers, options.jobs)
    return 1 if problems.lines else 0


def _print_idle(used: set[str], chosen: list[Mutant], answers: Answers, jobs: int) -> None:
    questions = _questions()
    left = sorted(questions.ids - used)
    idle = [name for name in left if not _kills(name, chosen, answers, jobs)]
    print(f"\n{len(idle)} of {len(questions.ids)} checks kill no mutant: {', '.join(idle) or '-'}")  # noqa: T201


def _kills(check: str, chosen: list[Mutant], answers: Answers, jobs: int) -> bool:
    """Whether a check by itself notices any mutant; it is asked until it does."""
    alone = functools.partial(_questions().only, check)
    return any(verdict.killer is not None for verdict in answers.judge_all(chosen, alone, jobs, check))


if __name__ == "__main__":
    generated.require_forks()
    raise SystemExit(main(sys.argv[1:]))
