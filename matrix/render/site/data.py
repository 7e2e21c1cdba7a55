"""The site as JSON: a document a pair, a release, a check and a failure, and the summary for the library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from matrix.classes.table import PATH as CLASSES
from matrix.judge.baseline import OURS
from matrix.judge.changes import ReleaseChanges
from matrix.judge.failures import Failure, ranges
from matrix.judge.goals import RULE, Answer
from matrix.render.site import words
from matrix.render.site.facts import Facts, Measured, Pair

SCHEMA = 1


def dump(document: Mapping[str, Any]) -> str:
    """A document as a file."""
    # Without indents the encoder is the fast one, and a pair takes half the room.
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"
    # Half a surrogate pair becomes its own escape, which JSON has too.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def answer(found: Answer | None, facts: Facts) -> dict[str, Any]:
    """One subject's answer."""
    if found is None:
        return {"answer": "unknown", "sentence": "Not measured", "passed": 0, "asked": 0, "goals": {}}
    return {
        "answer": found.word,
        "sentence": words.sentence(found, facts.goals),
        "passed": found.passed,
        "asked": found.asked,
        "goals": {goal.name: found.goal(goal.name) for goal in facts.goals},
    }


def pair(facts: Facts, which: Pair) -> dict[str, Any]:
    """A pair of releases."""
    return {
        "schema": SCHEMA,
        "torch": which[0],
        "transformers": which[1],
        "impossible": facts.impossible.get(which),
        "subjects": {name: answer(facts.answer(which, name), facts) for name in facts.subjects},
        "nearest": [list(other) for other in ([] if which in facts.cells else facts.neighbours(which))],
        "cells": [_cell(each) for each in facts.cells.get(which, ())],
    }


def _cell(measured: Measured) -> dict[str, Any]:
    about = measured.run.environment
    return {
        "cell": measured.cell.id,
        "python": measured.cell.python,
        "device": measured.cell.device,
        "complete": measured.run.complete,
        "unresolved": measured.run.unresolved,
        "started": about.started,
        "earliest": measured.earliest or about.started,
        "commit": about.commit,
        "digest": about.digest,
        "packages": dict(about.packages),
        "causes": [
            {
                "subject": cause.subject,
                "verdict": cause.verdict,
                "status": cause.status,
                "message": cause.message,
                "reproduce": cause.reproduce,
                "failure": cause.page or None,
                "checks": list(cause.ids),
            }
            for cause in measured.causes
        ],
    }


def release(facts: Facts, axis: str, name: str) -> dict[str, Any]:
    """A release of torch or transformers."""
    pairs = [one for one in facts.pairs if one[axis != "torch"] == name]
    return {
        "schema": SCHEMA,
        "axis": axis,
        "release": name,
        "pairs": [
            {
                "torch": one[0],
                "transformers": one[1],
                "impossible": one in facts.impossible,
                "subjects": {
                    subject: answer(facts.answer(one, subject), facts)["answer"] for subject in facts.subjects
                },
            }
            for one in pairs
        ],
        "changes": changes(facts.changes.get((axis, name))),
    }


def changes(change: ReleaseChanges | None) -> dict[str, Any] | None:
    """What a release broke and repaired; null for the oldest that was measured."""
    if change is None:
        return None
    return {
        "before": change.before,
        "beside": list(change.beside),
        "suites_differ": change.suites,
        "left_out": change.left,
        "changes": [
            {
                "kind": one.kind,
                "subject": one.subject,
                "failure": one.page or None,
                "message": one.message,
                "checks": list(one.ids),
                "beside": list(one.beside),
            }
            for one in change.changes
        ],
    }


def publications(facts: Facts) -> dict[str, Any]:
    """What each publication changed against the one before it."""
    return {"schema": SCHEMA, "publications": [each.to_json() for each in facts.publications]}


def check(family: str, ids: Sequence[str], subjects: Mapping[str, Mapping[Pair, tuple[int, int]]]) -> dict[str, Any]:
    """A check: for each subject and pair, how many of its variants pass and how many were asked."""
    return {
        "schema": SCHEMA,
        "check": family,
        "variants": list(ids),
        "subjects": {
            subject: [
                {"torch": torch, "transformers": transformers, "passed": passed, "asked": asked}
                for (torch, transformers), (passed, asked) in counts.items()
            ]
            for subject, counts in subjects.items()
        },
    }


def failure(facts: Facts, one: Failure) -> dict[str, Any]:
    """A known failure."""
    return {
        "schema": SCHEMA,
        **{name: getattr(one, name) for name in ("page", "title", "fault", "fix", "code")},
        "first_bad": one.first_bad(facts.releases),
        "first_good": one.first_good(facts.releases),
        "pairs": [list(each) for each in one.pairs],
        "says": [dict(each) for each in one.says],
    }


def classes() -> dict[str, Any]:
    """What the cache classes of each release have, as it travels with the library."""
    found: dict[str, Any] = json.loads(CLASSES.read_text(encoding="utf-8"))
    return found


def known(facts: Facts) -> dict[str, Any]:
    """The summary that travels with the library: what `explain`, `pins` and `doctor` read."""
    names = ("page", "title", "fault", "fix", "code", "first_bad", "first_good", "says")
    failures = []
    for one in facts.failures:
        whole = failure(facts, one)
        seen = ranges(one.pairs, facts.releases["transformers"])
        instead = {"instead": dict(one.instead)} if one.instead else {}
        failures.append({**{name: whole[name] for name in names}, "seen": seen, **instead})
    pairs = {}
    for which in facts.pairs:
        found = {name: facts.answer(which, name) for name in facts.subjects}
        if which in facts.impossible:
            pairs["/".join(which)] = {OURS: f"No: these two cannot be installed together. {facts.impossible[which]}"}
        elif any(found.values()):
            own = {name: words.sentence(one, facts.goals) for name, one in found.items() if one}
            pairs["/".join(which)] = own
    goals = [
        {"name": goal.name, "title": goal.want, "rule": RULE, "pins": _pins(facts, goal.name)} for goal in facts.goals
    ]
    measured = list(facts.results.dates)
    return {"schema": SCHEMA, "measured": measured, "failures": failures, "pairs": pairs, "goals": goals}


def _pins(facts: Facts, goal: str) -> dict[str, Any] | None:
    pins = facts.pins[goal]
    if pins is None:
        return None
    return {"torch": pins.cell.torch, "transformers": pins.cell.transformers, "packages": dict(pins.packages)}
