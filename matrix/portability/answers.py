"""What one process answered: the file that it streamed, read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Act:
    """What one process answered: its header, its answers by program and question, and whether it reached its end."""

    header: Mapping[str, str]
    answers: Mapping[tuple[str, str], tuple[str, str]]
    finished: str | None = None
    died: str = ""

    @classmethod
    def read(cls, path: Path) -> Act | None:
        """Read a file of answers; None where there is none. A torn last line is not an answer."""
        if not path.exists():
            return None
        header: dict[str, str] = {}
        answers: dict[tuple[str, str], tuple[str, str]] = {}
        finished, died = None, ""
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line: dict[str, Any] = json.loads(text)
            except ValueError:
                continue
            kind = line.pop("kind", "")
            if kind == "portability":
                header = {key: str(value) for key, value in line.items()}
            elif kind == "answer":
                answers[line["program"], line["question"]] = (line["status"], line["message"])
            elif kind == "end":
                finished = line["finished"]
            elif kind == "died":
                died = line["why"]
        return cls(header, answers, finished, died)

    def answer(self, program: str, question: str) -> tuple[str, str]:
        """The answer to a question; a process that died before it answered is an error."""
        given = self.answers.get((program, question))
        if given is not None:
            return given
        return ("error", f"the process {self.died}") if self.died else ("missing", "it was not asked")
