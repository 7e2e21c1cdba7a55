"""`python -m kvconform check`: run the suite here, stream the record, print a short summary.

Exit codes: 0 nothing failed; 1 a check failed, erred, crashed or timed out, or the record could not be written; 2
usage; 3 nothing selected; 4 the environment is not what `--expect` says; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from kvconform_conformance.runner import carry, optin, reach
from kvconform_conformance.runner.environment import Environment, EnvironmentMismatchError
from kvconform_conformance.runner.recorder import FAILED, Recorder, RecordError, now

SUITE = Path(__file__).parents[1]
OK, FAILURES, USAGE, EMPTY, MISMATCH, INTERRUPTED = 0, 1, 2, 3, 4, 130
_LOST = "what it holds is good; free some space or give --record another file, then run the same command again"


class UsageError(Exception):
    """Something the user can put right on the command line (exit code 2)."""


def parser() -> argparse.ArgumentParser:
    """The options of `check`."""
    made = argparse.ArgumentParser(prog="python -m kvconform check", description=__doc__.splitlines()[0])
    made.add_argument("--subject", action="append", help="kvconform, native, exporter or module:attribute; may repeat")
    made.add_argument(
        "--category",
        action="append",
        help="only this category; may repeat. onnx and executorch need packages of their own and run only when named",
    )
    made.add_argument(
        "-k",
        dest="keyword",
        metavar="EXPR",
        help="an id, a check ('round-trip/whole'), or an expression over ids ('export and not strict')",
    )
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    made.add_argument("--timeout", type=float, default=240.0, metavar="SECONDS", help="limit of one check (240)")
    made.add_argument("--jobs", type=int, default=2, metavar="N", help="worker processes (2)")
    made.add_argument("--record", type=Path, metavar="FILE", help="stream the record to this file (JSON lines)")
    made.add_argument("--cell", metavar="ID", help="the id in the record's header (default: from the versions here)")
    made.add_argument("--digest", metavar="HEX", help="the suite's digest, for the record's header")
    made.add_argument(
        "--carry",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="an earlier record: its answers that still hold are taken over; may repeat, the best first",
    )
    made.add_argument("--expect", action="append", default=[], metavar="PACKAGE=VERSION", help="refuse another version")
    made.add_argument("--list", action="store_true", help="list ids, categories and explanations, and run nothing")
    made.add_argument("--shuffle", type=int, metavar="SEED", help="run in a random order, the same for the same seed")
    made.add_argument("--repeat", type=int, metavar="N", help="run N times, shuffled after the first, and compare")
    made.add_argument("--durations", type=int, default=0, metavar="N", help="print the N slowest checks")
    made.add_argument("--quiet", action="store_true", help="print no summary")
    made.add_argument("--end-with-stdin", action="store_true", help="end when the standard input is closed")
    # The suite's own tests put planted checks in a folder of theirs.
    made.add_argument("--suite", type=Path, default=SUITE, help=argparse.SUPPRESS)
    return made


def main(argv: list[str]) -> int:
    """Run `check` and return its exit code."""
    try:
        options = parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    try:
        return _main(options) if options.repeat is None else _repeat(options)
    except UsageError as error:
        return _complain(str(error), USAGE)
    except EnvironmentMismatchError as error:
        return _complain(str(error), MISMATCH)
    except RecordError as error:
        return _complain(f"{error}; {_LOST}", FAILURES)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)


def _complain(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - a command's output
    return code


def _main(options: argparse.Namespace) -> int:
    missing = [name for name in ("pytest", "xdist") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} not installed here: python -m pip install 'kvconform[check]'")
    subjects = _subjects(options.subject)
    if options.list:
        from kvconform_conformance.runner.listing import print_checks

        return print_checks(options.suite, options.category or [], options.keyword)
    _validate(options)
    if options.end_with_stdin:
        from kvconform_conformance.runner.lifeline import end_with_stdin

        end_with_stdin()
    _expect_packages(options)
    environment = Environment.here(options.device)
    environment.verify(options.expect)
    return _run(options, subjects, environment)


def _repeat(options: argparse.Namespace) -> int:
    from kvconform_conformance.runner.repeat import repeat

    if options.repeat < 2:
        raise UsageError(f"--repeat {options.repeat}: give 2 or more")
    if options.record or options.shuffle is not None:
        raise UsageError("--repeat makes records and orders of its own: leave --record and --shuffle out")
    arguments = [f"--subject={name}" for name in _subjects(options.subject)]
    arguments += [f"--category={name}" for name in options.category or []]
    arguments += [f"--expect={text}" for text in options.expect]
    arguments += [f"--device={options.device}", f"--timeout={options.timeout}", f"--jobs={options.jobs}"]
    arguments += [] if options.keyword is None else ["-k", options.keyword]
    return repeat([*arguments, f"--suite={options.suite}"], options.repeat)


def _subjects(names: list[str] | None) -> list[str]:
    """Resolve every subject once here, so that a bad reference costs one message instead of a red cell."""
    from kvconform_conformance.runner.subjects import SubjectReferenceError, default_names, resolve

    wanted = list(dict.fromkeys(names or default_names()))
    try:
        for name in wanted:
            resolve(name)
    except SubjectReferenceError as error:
        raise UsageError(str(error)) from error
    return wanted


def _validate(options: argparse.Namespace) -> None:
    if options.jobs < 1:
        raise UsageError(f"--jobs {options.jobs}: give 1 or more")
    missing = [str(path) for path in options.carry if not path.is_file()]
    if missing:
        raise UsageError(f"--carry {missing[0]}: no such file")
    if options.timeout <= 0:
        raise UsageError(f"--timeout {options.timeout}: give seconds above 0")
    for expectation in options.expect:
        if "=" not in expectation:
            raise UsageError(f"--expect {expectation}: write package=version, for example --expect torch=2.5")
    if not options.suite.is_dir():
        raise UsageError(f"--suite {options.suite}: no such folder")


def _expect_packages(options: argparse.Namespace) -> None:
    """An opt-in category without its packages is told before anything runs: every check of it would be `na`."""
    lacking = optin.explain_missing(optin.asked_for(options.category or [], options.keyword))
    if lacking:
        raise UsageError(lacking)


def _run(options: argparse.Namespace, subjects: list[str], environment: Environment) -> int:
    import pytest

    from kvconform_conformance.runner import selection, summary
    from kvconform_conformance.runner.controller import Controller
    from kvconform_conformance.runner.warm import warm_workers

    _calm_environment()
    with (
        tempfile.TemporaryDirectory(prefix="kvconform-") as faults,
        warm_workers(Path(faults), environment.device) as python,
    ):
        # To read the sources takes seconds, in which the warm process imports.
        header, asked = _asked(options, subjects, environment)
        try:
            recorder = Recorder.open(options.record, environment.device)
        except OSError as error:
            raise UsageError(f"--record {options.record}: {error.strerror}; name a file that can be written") from error
        recorder.asked = asked
        recorder.write("cell", header)
        controller = Controller(recorder, Path(faults))
        arguments = _arguments(options, subjects, environment.device, faults, python)
        left_out = Path(faults) / "left-out.json"
        left_out.write_text(json.dumps(list(asked.lines)), encoding="utf-8")
        arguments.append(f"--kvconform-leave-out={left_out}")
        try:
            code = pytest.main(arguments, plugins=[controller, summary.Progress(recorder)])
        except KeyboardInterrupt:
            # Ctrl-C outside pytest's own loop, or a second one while the workers are being stopped.
            controller.interrupted, code = True, pytest.ExitCode.INTERRUPTED
            recorder.end("interrupted")
    interrupted = controller.interrupted or (code == pytest.ExitCode.INTERRUPTED and not controller.problems)
    broken = bool(controller.problems)
    recorder.end("interrupted" if interrupted or broken else "complete")
    if not options.quiet:
        summary.show(recorder, environment, options.durations)
    if interrupted:
        return _complain("interrupted; the record holds what had finished", INTERRUPTED)
    if recorder.lost:
        return _complain(f"{recorder.lost}; {_LOST}", FAILURES)
    if broken:
        return _complain("the suite could not run:\n" + "\n".join(dict.fromkeys(controller.problems)), FAILURES)
    if not recorder.planned:
        return _complain(selection.explain_empty(options.suite, options.category or [], options.keyword), EMPTY)
    unfinished = len(recorder.planned) - len(recorder.outcomes)
    if unfinished:
        return _complain(f"{unfinished} checks were planned and never ended", FAILURES)
    return FAILURES if any(outcome.status in FAILED for outcome in recorder.outcomes.values()) else OK


def _header(options: argparse.Namespace, subjects: list[str]) -> dict[str, object]:
    selection = {"keyword": options.keyword, "categories": options.category or []}
    return {"subjects": subjects, "selection": selection, "started": now()}


def _asked(
    options: argparse.Namespace, subjects: list[str], environment: Environment
) -> tuple[dict[str, Any], carry.Asked]:
    """The header line, and the answers that hold; a run that leaves no record has no use for digests."""
    digests = reach.digests(options.suite) if options.record else {}
    suite = options.digest or (reach.suite_digest(digests) if digests else None)
    header = {**environment.to_json(options.cell, suite), **_header(options, subjects)}
    return header, carry.take_over(options.carry, header, digests)


def _calm_environment() -> None:
    """Keep the user's pytest settings out of the workers, and their libraries off the network."""
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.environ.pop("PYTEST_PLUGINS", None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    # A job that is ended by its scheduler ends its record too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def base_arguments(suite: Path) -> list[str]:
    """The pytest options every run has: nothing of the user's configuration, nothing written beside the suite."""
    return [
        str(suite),
        f"--config-file={SUITE / 'pytest.ini'}",
        f"--rootdir={suite}",
        "--noconftest",
        "--import-mode=importlib",
        "--strict-markers",
        *("-p", "no:cacheprovider"),
        *("-p", "no:faulthandler"),
        *("-p", "no:logging"),
        *("-p", "no:terminal"),
        *("-p", "no:threadexception"),
        *("-p", "no:unraisableexception"),
        *("-p", "no:warnings"),
        *("-p", "kvconform_conformance.runner.plugin"),
    ]


def _arguments(options: argparse.Namespace, subjects: list[str], device: str, faults: str, python: str) -> list[str]:
    arguments = base_arguments(options.suite)
    # Some checks take a thousand times as long as others: with fixed shares one worker is left alone at the end.
    arguments += ["-p", "xdist.plugin", "--tx", f"{options.jobs}*popen//python={python}", "--dist", "worksteal"]
    arguments += ["--max-worker-restart", "100000"]
    arguments += [f"--kvconform-subject={name}" for name in subjects]
    arguments += [f"--kvconform-category={name}" for name in options.category or []]
    arguments += [
        f"--kvconform-device={device}",
        f"--kvconform-timeout={options.timeout}",
        f"--kvconform-faults={faults}",
    ]
    arguments += [] if options.shuffle is None else [f"--kvconform-shuffle={options.shuffle}"]
    if options.keyword:
        # One whole id is meant as such; anything else is an expression over ids.
        arguments += (
            [f"--kvconform-exactly={options.keyword}"]
            if "/" in options.keyword and " " not in options.keyword
            else [
                "-k",
                options.keyword,
            ]
        )
    return arguments
