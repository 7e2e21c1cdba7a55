"""The answers of a run of mutants, saved as they come: a run that was stopped goes on where it was.

One file of JSON lines for each environment and state of the code, under ``.cache/mutants/``: whoever changes the
library, the suite or the mutants asks everything anew. The rows of harmless.toml are no part of that: they say what to
make of the answers.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mutants import running
from mutants.generated import Mutant
from mutants.running import Questions, Verdict

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "mutants"
_DIGITS = 12


@dataclass(frozen=True)
class Answers:
    """The file of one environment and state of the code."""

    path: Path

    @classmethod
    def here(cls, folder: Path = FOLDER) -> Answers:
        """The file of what is imported here."""
        import torch
        import transformers

        python = ".".join(map(str, sys.version_info[:2]))
        name = f"torch{torch.__version__}-transformers{transformers.__version__}-python{python}-{_digest()}"
        return cls(folder / f"{name}.jsonl")

    def forget(self) -> None:
        """Remove what was saved."""
        self.path.unlink(missing_ok=True)

    def read(self) -> dict[tuple[str, str], Verdict]:
        """What is saved, by mutant and the one check that it was put to ("": to all of them)."""
        if not self.path.exists():
            return {}
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        found = {}
        for line in whole.splitlines():
            told = json.loads(line)
            check = told.pop("check")
            found[told["mutant"], check] = Verdict(**told)
        return found

    def judge_all(
        self, mutants: Sequence[Mutant], questions: Callable[[], Questions], jobs: int, check: str = ""
    ) -> Iterator[Verdict]:
        """What is saved of these mutants first; then the others are judged, and each answer is saved when it comes.

        Args:
            mutants: to judge.
            questions: gives the checks; called only where a mutant is left to judge.
            jobs: mutants at a time.
            check: the id of the only check among the questions; empty for all of them.
        """
        saved = self.read()
        yield from (saved[one.name, check] for one in mutants if (one.name, check) in saved)
        left = [one for one in mutants if (one.name, check) not in saved]
        if left:
            for verdict in running.judge_all(left, questions(), jobs):
                self._add(verdict, check)
                yield verdict

    def _add(self, verdict: Verdict, check: str) -> None:
        # A machine that was too busy is no answer: it is asked again.
        if verdict.status == "timeout":
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._end_line()
        with self.path.open("ab") as file:
            file.write(f"{json.dumps({'check': check, **asdict(verdict)})}\n".encode())

    def _end_line(self) -> None:
        """Cut off a line that was being written when a run was killed."""
        content = self.path.read_bytes() if self.path.exists() else b""
        if content and not content.endswith(b"\n"):
            self.path.write_bytes(content[: content.rfind(b"\n") + 1])


def _digest() -> str:
    """Of every file of code and data that an answer depends on."""
    import kvconform
    import kvconform_conformance

    total = hashlib.sha256()
    for package in (kvconform.__file__, kvconform_conformance.__file__, __file__):
        folder = Path(str(package)).resolve().parent
        for path in sorted(folder.rglob("*")):
            if path.suffix in {".py", ".json", ".toml"} and path.name != "harmless.toml":
                content = path.read_bytes()
                total.update(f"{folder.name}/{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()[:_DIGITS]
