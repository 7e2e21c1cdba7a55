"""What one cell saves, every other cell loads.

Each cell saves its programs once, then each cell loads those of every cell, in a process of its own. Each process
streams its answers to a file of its own under `.cache/portability/`, so an interrupted grid goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.cells.options import CellOptions
from matrix.cells.selection import select
from matrix.collect import fanout, locks, venv
from matrix.collect.digest import suite_digest
from matrix.collect.disk import Keeper, parse_budget
from matrix.collect.session import suite_variables
from matrix.collect.venv import Made
from matrix.errors import ExitCode, MakingError, UnresolvedError, UserError
from matrix.paths import Paths
from matrix.portability import pages
from matrix.portability.answers import Act
from matrix.portability.expected import load_known
from matrix.portability.verdicts import Crossings

LIMIT = 600.0
"""Seconds that one process has; a torch that hangs on another's archive must not hold up the grid."""

Make = Callable[[Cell], Made]


@dataclass(frozen=True)
class Work:
    """What is asked, and where things lie."""

    subject: str
    digest: str
    paths: Paths
    rerun: bool
    make: Make
    keeper: Keeper

    @property
    def folder(self) -> Path:
        """Where the programs and the answers of this subject lie."""
        return self.paths.portability / re.sub(r"[^\w.-]", "_", self.subject)

    def programs(self, saver: Cell) -> Path:
        """The folder of a cell's programs."""
        return self.folder / saver.id

    def record(self, saver: Cell, loader: Cell | None = None) -> Path:
        """The answers of a cell that saved, or of one that loaded what another saved."""
        return self.folder / "answers" / (f"{saver.id}.jsonl" if loader is None else f"{saver.id}--{loader.id}.jsonl")


def run(found: argparse.Namespace, axes: Axes, paths: Paths, *, make: Make | None = None) -> int:
    """Fill the grid of the selected cells (without a selection: the smoke tier), write it, and return the exit code.

    Args:
        found: the parsed options.
        axes: what there is.
        paths: where things lie.
        make: makes a cell's environment; tests bring their own.

    Raises:
        UserError: the options are wrong, no cell can be made, or another run is going on.
    """
    cells = [cell for cell in select(found, axes, tier="smoke") if not axes.why_not(cell)]
    if not cells:
        raise UserError("none of the cells can be made", "python -m matrix plan", ExitCode.UNRESOLVED)
    fanout.expect_disk(paths.home)

    def made(cell: Cell) -> Made:
        return venv.make(cell, axes, paths, torch_backend=found.torch_backend)

    digest = suite_digest(paths.root)
    keeper = Keeper(paths, parse_budget(found.disk_budget))
    work = Work(found.subject, digest, paths, found.rerun, make or made, keeper)
    known = load_known()
    out = found.out or paths.portability
    unmade: dict[Cell, str] = {}
    try:
        with locks.hold(paths.locks / "run.lock", "a matrix run"):
            unmade = _fill(work, cells)
    finally:
        # Also after Ctrl-C: what was answered is shown, and what was not is shown as missing.
        result = Crossings.collect(work.subject, digest, [c for c in cells if c not in unmade], work.record, known)
        pages.write(result, out)
    pages.show(result)
    print(f"written: {out / 'portability.json'}, {out / 'portability.md'}")
    for cell, why in unmade.items():
        print(f"  {cell.id}: no environment: {why}", file=sys.stderr)
    return int(ExitCode.UNRESOLVED) if unmade and result.exit_code == ExitCode.OK else result.exit_code


def _fill(work: Work, cells: Sequence[Cell]) -> dict[Cell, str]:
    """Save in every cell, then load in every cell. Return the cells without an environment, and why."""
    unmade: dict[Cell, str] = {}
    savers: list[Cell] = []
    for cell in cells:
        try:
            _act(work, cell, [(cell, None)])
            savers.append(cell)
        except (UnresolvedError, MakingError) as error:
            unmade[cell] = error.message
    # Backwards, so that the environments which were made last, and are still there, are asked first.
    for cell in reversed(savers):
        _act(work, cell, [(saver, cell) for saver in savers])
    return unmade


def _act(work: Work, cell: Cell, pairs: Sequence[tuple[Cell, Cell | None]]) -> None:
    """Run in one cell what is not answered yet: saving (no loader), or loading from each saver."""
    freed = work.keeper.room_for(cell.torch)
    if freed:
        print(freed, flush=True)
    with locks.hold(work.paths.locks / f"{cell.venv}.lock", f"cell {cell.id}"):
        made = work.make(cell)
        for saver, loader in pairs:
            header = _header(work, saver, loader)
            if work.rerun or not _is_answered(work.record(saver, loader), header, made):
                print(
                    f"  {'save' if loader is None else 'load'} {saver.id}{f' in {loader.id}' if loader else ''}",
                    flush=True,
                )
                _process(work, made, saver, loader, header)


def _header(work: Work, saver: Cell, loader: Cell | None) -> dict[str, str]:
    """What an answer stands on: the suite, and for a loader the very programs that were saved."""
    header = {"cell": (loader or saver).id, "saver": saver.id, "digest": work.digest}
    if loader is not None:
        saved = Act.read(work.record(saver))
        header["programs"] = saved.finished or "not saved" if saved else "not saved"
    return header


def _is_answered(path: Path, header: dict[str, str], made: Made) -> bool:
    act = Act.read(path)
    if act is None or not act.finished:
        return False
    same = all(act.header.get(key) == value for key, value in header.items())
    versions = {name: act.header.get(name, "").partition("+")[0] for name in ("torch", "transformers")}
    return same and all(made.versions.get(name, value) == value for name, value in versions.items())


def _process(work: Work, made: Made, saver: Cell, loader: Cell | None, header: dict[str, str]) -> None:
    """One process of a cell; how it died is the answer to what it was asked and did not answer."""
    record = work.record(saver, loader)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    command = [str(made.python), "-m", "kvconform_conformance.portability", "load" if loader else "save"]
    command += [str(work.programs(saver)), "--subject", work.subject, "--record", str(record)]
    command += ["--header", json.dumps(header)]
    variables = suite_variables(CellOptions(subjects=(work.subject,))) | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=work.paths.root, env=variables, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        why = f"ended with code {done.returncode}: {' '.join(done.stderr.split()[-40:])}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"still running after {LIMIT:.0f} s"
    if why:
        with record.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"kind": "died", "why": why}) + "\n")
