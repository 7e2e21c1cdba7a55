"""The facts, as the templates ask for them: which releases are shown, and what is said of a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matrix.judge.baseline import NATIVE, OURS, PATCHED
from matrix.judge.failures import Failure
from matrix.render import wording
from matrix.render.site import words
from matrix.render.site.facts import AXES, Facts
from matrix.render.site.families import Family


@dataclass(frozen=True)
class Site:
    """The facts, as templates ask for them."""

    facts: Facts
    families: Sequence[Family]
    shown: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def subjects(self) -> Sequence[str]:
        """The subjects, ours first."""
        return self.facts.subjects

    @property
    def measured_pairs(self) -> int:
        """How many pairs were measured."""
        return sum(1 for each in self.facts.cells.values() if each[0].answers)

    @property
    def has_gpu(self) -> bool:
        """Whether a cell with a GPU was measured and answered."""
        return any(each.cell.device != "cpu" and each.answers for lane in self.facts.cells.values() for each in lane)

    @property
    def headline(self) -> str:
        """How many of them work, for each subject."""
        parts = []
        for subject in self.subjects:
            found = [one for each in self.facts.cells.values() if (one := each[0].answers.get(subject))]
            good = sum(one.word == "yes" for one in found)
            parts.append(f"{wording.subject_name(subject)}, {good} of {len(found)} work")
        return "; ".join(parts)

    def answers_of(self, torch: str, transformers: str) -> bool:
        """Whether a pair was measured and answered."""
        measured = self.facts.cells.get((torch, transformers))
        return bool(measured and measured[0].answers)

    def places(self, torch: str, transformers: str) -> list[tuple[str, str, str]]:
        """The lines of a place of the grid: tone, count, and the word for those who see neither colour nor sign."""
        found: list[tuple[str, str, str]] = []
        for subject in self.subjects:
            one = self.facts.answer((torch, transformers), subject)
            found.append((words.mark(one)[1], words.short(one), words.verdict(one).lower()))
        return found

    @property
    def always(self) -> list[str]:
        """The subjects that every answer speaks about, measured or not, then those that some cell measured."""
        return list(dict.fromkeys([OURS, PATCHED, NATIVE, *self.subjects]))

    def columns(self, answers: Mapping[str, Any]) -> list[str]:
        """The subjects that an answer speaks about: what a pair was not asked and need not have is left out."""
        return [one for one in self.always if one in (OURS, PATCHED, NATIVE) or one in answers]

    def lines(self, answers: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
        """A line a subject: its name, the tone, the verdict, the rest of the sentence."""
        found: list[tuple[str, str, str, str]] = []
        for subject in self.columns(answers):
            one = answers.get(subject)
            name = wording.subject_name(subject)
            sentence = words.split(words.sentence(one, self.facts.goals))
            found.append((name[:1].upper() + name[1:], words.mark(one)[1], *sentence))
        return found

    def first_bad(self, failure: Failure) -> str:
        """The first release that has a failure."""
        return failure.first_bad(self.facts.releases)

    def first_good(self, failure: Failure) -> str:
        """The first release that has it no longer."""
        return failure.first_good(self.facts.releases)


def site_of(facts: Facts, families: Sequence[Family]) -> Site:
    """The releases that were measured anywhere are shown, the newest first."""
    seen = {axis: {pair[at] for pair in facts.cells} for at, axis in enumerate(AXES)}
    shown = {axis: [one for one in reversed(facts.releases[axis]) if one in seen[axis]] for axis in AXES}
    return Site(facts, families, shown)
