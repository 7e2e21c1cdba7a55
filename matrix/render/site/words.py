"""Answers as sentences: the same on the pages, in the data, in badges and in the library's summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from matrix.judge.goals import Answer, Goal, Word

Tone = Literal["good", "known", "bad", "open", "none"]


def mark(answer: Answer | None) -> tuple[str, Tone]:
    """A sign that needs no colour, and the tone for those who see colours."""
    if answer is None:
        return "·", "none"
    signs: dict[Word, tuple[str, Tone]] = {"no": ("✗", "bad"), "partly": ("◐", "open"), "unknown": ("·", "none")}
    if answer.word == "yes":
        return ("✓", "good") if answer.passed == answer.asked else ("≈", "known")
    return signs[answer.word]


def short(answer: Answer | None) -> str:
    """A place of the grid: "✓ 549", "≈ 499/512", "✗ 200/549"."""
    sign, _ = mark(answer)
    if answer is None:
        return sign
    return f"{sign} {answer.asked}" if answer.passed == answer.asked else f"{sign} {answer.passed}/{answer.asked}"


def verdict(answer: Answer | None) -> str:
    """The first word of an answer."""
    if answer is None:
        return "Not measured"
    words: dict[Word, str] = {"yes": "Yes", "partly": "Partly", "no": "No", "unknown": "Not measured"}
    return words[answer.word]


def sentence(answer: Answer | None, goals: Sequence[Goal]) -> str:
    """The whole answer: "Yes, except strict export (5 of 16): known failures of torch or transformers"."""
    if answer is None:
        return "Not measured"
    if answer.word == "yes":
        except_for = [_counted(answer, goal) for goal in goals if goal.purpose and _fails(answer, goal)]
        if answer.passed == answer.asked:
            all_pass = f"all {answer.asked} checks pass"
            # What fails was asked in a run of an opt-in category, and is none of these checks.
            return f"Yes, except {_and(except_for)}: {all_pass} beside that" if except_for else f"Yes: {all_pass}"
        rest = f"{answer.asked - answer.passed} of {answer.asked} checks fail, for known reasons"
        return f"Yes, except {_and(except_for)}: {rest}" if except_for else f"Yes; {rest}"
    good = [goal.title for goal in goals if goal.purpose and answer.goal(goal.name) == "yes"]
    bad = [_counted(answer, goal) for goal in goals if goal.purpose and _fails(answer, goal)]
    works = f"{_and(good)} work{'s' if len(good) == 1 and not good[0].endswith('s') else ''}" if good else ""
    fails = f"{_and(bad)} do{'es' if len(bad) == 1 else ''} not" if bad else ""
    total = f"{answer.passed} of {answer.asked} checks pass"
    # What decides comes first: what does not work where the answer is no, what does where it is partly.
    parts = (fails, f"{works}" if works else "") if answer.word == "no" else (works, fails)
    return f"{verdict(answer)}: {'; '.join([*filter(None, parts), total])}"


def split(text: str) -> tuple[str, str]:
    """A sentence in two: its verdict, which is shown in bold, and the rest."""
    for word in ("Yes", "Partly", "No"):
        if text.startswith(word) and not text.startswith("Not "):
            return word, text.removeprefix(word)
    return "", text


def purposes(answer: Answer | None, goals: Sequence[Goal]) -> list[tuple[str, Word, str]]:
    """What for: each purpose with its word and its count, "5 of 16"."""
    rows: list[tuple[str, Word, str]] = []
    for goal in goals:
        if not goal.purpose:
            continue
        passed, asked = answer.goals.get(goal.name, (0, 0)) if answer else (0, 0)
        word: Word = answer.goal(goal.name) if answer else "unknown"
        nothing = "n/a: the releases lack it" if answer and goal.name in answer.lacking else "not measured"
        rows.append((goal.title, word, f"{passed} of {asked}" if asked else nothing))
    return rows


def _fails(answer: Answer, goal: Goal) -> bool:
    return answer.goal(goal.name) in ("partly", "no")


def _counted(answer: Answer, goal: Goal) -> str:
    passed, asked = answer.goals[goal.name]
    return f"{goal.title} ({passed} of {asked})"


def _and(names: Iterable[str]) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
