"""One cell asked: its environment made, the suite run in it, the record put in its place."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.cells import optin
from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.collect import steps, venv
from matrix.collect.digest import suite
from matrix.collect.outcome import Outcome
from matrix.errors import ExitCode, MakingError, UnresolvedError, UserError
from matrix.paths import Paths
from matrix.records import files, parquet
from matrix.records.lines import dump
from matrix.records.writing import put

GRACE = 20.0
"""Seconds the suite has to end its record after Ctrl-C."""
LEFT = "left"
"""The end of the name of what a killed run had written."""


@dataclass(frozen=True)
class Run:
    """A cell with what was asked of it and where things lie."""

    cell: Cell
    options: CellOptions
    axes: Axes
    paths: Paths

    @property
    def record(self) -> Path:
        """Where the record goes."""
        return self.options.folder(self.paths) / f"{self.cell.id}.jsonl"


Command = Callable[[Run, Path], Sequence[str]]
"""Makes the command that runs the suite and streams the record to a file; tests put a small script here."""


@dataclass(frozen=True)
class Collected:
    """What a run of the suite left.

    Attributes:
        code: the exit code of the suite.
        record: the file of its answers, or None where it left none.
        again: the command that asks the cell again.
    """

    code: int
    record: Path | None
    again: str


def collect(run: Run, outcome: Outcome, command: Command | None = None) -> Collected:
    """Make the environment, run the suite in it, and put the record that it streamed in its place.

    Args:
        run: the cell and the request.
        outcome: gets the seconds that each step took.
        command: makes the line that runs the suite; tests bring their own, which needs no environment.

    Raises:
        UserError: no environment could be made.
        OSError: the record could not be written.
        KeyboardInterrupt: Ctrl-C, after the record was ended and kept.
    """
    part = run.record.with_suffix(".jsonl.part")
    prepare(part)
    if command is None:
        python = _make_venv(run, outcome)
        line: Sequence[str] = check_command(run, python, part)
    else:
        line = command(run, part)
    steps.show(run.cell.venv, "running the checks")
    started = time.monotonic()
    interrupted, code = False, int(ExitCode.INTERRUPTED)
    try:
        code = execute(line, cwd=run.paths.root, env=suite_variables(run.options))
    except KeyboardInterrupt:
        interrupted = True
    outcome.seconds["check"] = time.monotonic() - started
    record = settle(part, run.record)
    if interrupted:
        raise KeyboardInterrupt
    return Collected(code, record, run.cell.command)


def check_command(run: Run, python: Path, part: Path) -> list[str]:
    """The one line that runs the suite in a cell."""
    cell, options = run.cell, run.options
    command = [str(python), "-m", "kvconform", "check", "--record", str(part), "--cell", cell.id]
    command += ["--digest", suite(run.paths.root).digest, "--device", cell.device]
    command += ["--end-with-stdin", *(f"--carry={path}" for path in earlier(run))]
    if not cell.moving:
        command += [f"--expect=torch={cell.torch}", f"--expect=transformers={cell.transformers}"]
    command += [f"--subject={name}" for name in options.subjects]
    command += [f"--category={name}" for name in options.categories]
    limits = {"-k": options.keyword, "--timeout": options.timeout, "--jobs": options.jobs}
    for flag, value in limits.items():
        command += [] if value is None else [flag, str(value)]
    return command


def earlier(run: Run) -> list[Path]:
    """The records whose answers the suite may take over, the best first; none where everything is to be asked.

    What a killed run had written is one, and so are the answers of some subjects only, and the published answer, as a
    file of lines.
    """
    if run.options.fresh or run.options.rerun:
        return []
    beside = [run.record.with_suffix(f".jsonl.{name}") for name in (LEFT, "interrupted")]
    is_everything = not (run.options.partial or run.options.records)
    some = [run.paths.partial / run.record.name] if is_everything else []
    found = [path for path in (*beside, run.record, *some) if path.is_file()]
    if is_everything and run.paths.published.exists():
        published = run.record.with_suffix(".jsonl.published")
        runs = parquet.read(run.paths.published, [run.cell.id])
        put(published, "".join(dump(each) for each in runs[-1:]))
        found.append(published)
    return found


def settle(part: Path, final: Path) -> Path | None:
    """Put a finished record in its place.

    | new record | earlier record | what happens                          |
    |------------|----------------|---------------------------------------|
    | complete   | any            | replaces it                           |
    | incomplete | complete       | lies next to it as `.interrupted`     |
    | incomplete | none, or less  | becomes the record, and says so       |
    | none       | any            | the earlier one stays                 |

    Returns:
        Where the new record lies, or None when there is none.
    """
    if not part.exists() or not part.stat().st_size:
        part.unlink(missing_ok=True)
        return None
    if not _is_complete(part) and _is_complete(final):
        final = final.with_suffix(".jsonl.interrupted")
    part.replace(final)
    if _has_answers(final):
        # It began with what the killed run had.
        part.with_suffix(f".{LEFT}").unlink(missing_ok=True)
    return final


def _make_venv(run: Run, outcome: Outcome) -> Path:
    started = time.monotonic()
    options = run.options
    try:
        _expect_possible(run)
        extra = optin.requirements(run.cell, options.categories, run.axes)
        made = venv.make(
            run.cell, run.axes, run.paths, torch_backend=options.torch_backend, fresh=options.fresh, extra=extra
        )
    except (UnresolvedError, MakingError) as error:
        if _is_fact(run, error):
            files.write_unresolved(run.record, run.cell, error.message)
        raise
    outcome.seconds["environment"] = time.monotonic() - started
    return made.python


def _expect_possible(run: Run) -> None:
    extras = run.axes.extras
    if run.cell.extra and run.cell.extra not in extras:
        raise UserError(f"unknown --extra {run.cell.extra!r}; there are {', '.join(extras)}", "python -m matrix plan")
    why_not = run.axes.why_not(run.cell)
    if why_not:
        raise UnresolvedError(why_not, "python -m matrix plan")


def _is_fact(run: Run, error: UserError) -> bool:
    """Whether a failure to make the environment is the cell's record.

    | why                                | the cell                      | a record                         |
    |------------------------------------|-------------------------------|----------------------------------|
    | the releases do not fit each other | any                           | yes, but for the exception below |
    | no network, a full disk            | follows upstream, no record   | yes: upstream cannot be had here |
    | no network, a full disk            | any other                     | no                               |

    The exception: with `--torch-backend` the releases may not fit for lack of that build, so a record that is there
    stays.
    """
    if isinstance(error, MakingError):
        return run.cell.moving and not run.record.exists()
    return not (run.record.exists() and run.options.torch_backend)


def execute(line: Sequence[str], *, cwd: Path, env: dict[str, str]) -> int:
    """Run a command that shares the terminal, and let it end its record when a signal comes.

    Returns:
        Its exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the command has ended.
    """
    previous = _on_sigterm(signal.default_int_handler)
    # The suite's own summary goes to stdout and is not shown: a summary beside the baseline follows. Its progress and
    # its errors go to stderr.
    # It watches its standard input, which is closed when this process is gone, also when it is killed.
    process = subprocess.Popen(list(line), cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        return process.wait()
    except KeyboardInterrupt:
        _end(process)
        raise
    finally:
        _on_sigterm(previous)
        if process.stdin:
            process.stdin.close()


def suite_variables(options: CellOptions) -> dict[str, str]:
    """The variables that the suite runs with: those of this process, without what configures its Python.

    PYTHONPATH is passed on only where a subject of the user's own is asked for, which may be found through it.
    """
    # Without bytecode on the disk each process of a cell compiles torch again, which takes longer than most checks.
    drop = {"PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE"}
    if all(":" not in name for name in options.subjects):
        drop.add("PYTHONPATH")
    variables = {name: value for name, value in os.environ.items() if name not in drop}
    variables["PYTHONNOUSERSITE"] = "1"
    return variables


def _end(process: subprocess.Popen[bytes]) -> None:
    # A terminal sends Ctrl-C to the suite too, which then ends its record; a second signal would interrupt that. So it
    # is terminated only after a second, and killed after GRACE.
    for wait, ask in ((1.0, process.terminate), (GRACE, process.kill)):
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            ask()
        except KeyboardInterrupt:
            process.kill()
    process.wait()


def _on_sigterm(handler: object) -> object:
    try:
        return signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
    except ValueError:  # not in the main thread: nobody can interrupt it here
        return handler


def prepare(part: Path) -> None:
    """Keep what a killed run had written, unless it had no answer yet: then an earlier one may have had more."""
    part.parent.mkdir(parents=True, exist_ok=True)
    if _has_answers(part):
        part.replace(part.with_suffix(f".{LEFT}"))
    part.unlink(missing_ok=True)


def _has_answers(path: Path) -> bool:
    return path.is_file() and b'"kind": "check"' in path.read_bytes()


def _is_complete(path: Path) -> bool:
    try:
        run = files.read(path)
    except UserError:
        return False
    return run.complete and run.unresolved is None
