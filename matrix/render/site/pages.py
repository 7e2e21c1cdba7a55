"""The pages: what each of them is given to show."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from matrix.judge.baseline import NATIVE, OURS, PATCHED
from matrix.judge.changes import KINDS, ReleaseChanges
from matrix.judge.failures import Failure, ranges
from matrix.judge.goals import RULE
from matrix.render import wording
from matrix.render.site import data, markdown, words
from matrix.render.site.facts import AXES, Facts, Measured, Pair
from matrix.render.site.families import Family
from matrix.render.site.families import answer as family_answer
from matrix.render.templating import TEMPLATES, environment
from matrix.render.text import printable

MOST_CAUSES = 30
"""Causes of one subject that a pair's page shows; its data has all of them."""
MOST_BROKE = 6
"""Releases that the first page tells what they broke."""
NAV = (
    ("My pair", "index.html#my-pair"),
    ("Which pair", "pins/index.html"),
    ("My error", "index.html#my-error"),
    ("What broke", "changes/index.html"),
    ("Known failures", "failure/index.html"),
    ("Checks", "check/index.html"),
    ("Data", "data/index.html"),
)
TONES = {
    "broke": "bad",
    "repaired": "good",
    "newly asked and failing": "known",
    "newly asked and passing": "good",
    "no longer asked": "open",
}
WORD_TONES = {"yes": "good", "partly": "open", "no": "bad", "unknown": "none"}
CODE = """\
import torch
from kvconform import register_flattening_functions

with register_flattening_functions(patch_transformers=True):
    program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=shapes)"""


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

    def lines(self, answers: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
        """A line a subject: its name, the tone, the verdict, the rest of the sentence."""
        found: list[tuple[str, str, str, str]] = []
        for subject in self.always:
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


def pages(site: Site, warnings: Sequence[str], *, parquet: bool) -> Iterator[tuple[str, str]]:
    """Every page of the site, by its path."""
    facts = site.facts
    make = _Maker(site)
    yield make.front(warnings)
    for pair in facts.pairs:
        yield make.pair(pair)
    for axis in AXES:
        for release in facts.releases[axis]:
            yield make.release(axis, release)
    yield make.page("failure/index.html", "failures.html", "Known failures")
    for failure in facts.failures:
        yield make.failure(failure)
    rows = [(one.name, [_cells(one, subject) for subject in site.subjects]) for one in site.families]
    yield make.page("check/index.html", "checks.html", "The checks", families=rows)
    for family in site.families:
        yield make.check(family)
    goals = [(goal, facts.pins[goal.name]) for goal in facts.goals]
    yield make.page("pins/index.html", "pins-index.html", "Which pair should I use?", goals=goals, rule=RULE)
    for goal, pins in goals:
        title = f"To {goal.want}"
        yield make.page(f"pins/{goal.name}/index.html", "pins.html", title, goal=goal, pins=pins, rule=RULE)
    told = [(change, [_told(change, subject) for subject in site.subjects]) for change in facts.changes.values()]
    yield make.page("changes/index.html", "changes.html", "What broke?", rows=told)
    yield make.page("data/index.html", "data.html", "The data", parquet=parquet)


def change_text(change: ReleaseChanges, subjects: Sequence[str]) -> str:
    """What a release changed, in a sentence."""
    parts = [
        f"{wording.subject_name(one)}: {_told(change, one)}" for one in subjects if _told(change, one) != "nothing"
    ]
    if not change.beside:
        return "not measured beside the same release of the other"
    return "; ".join(parts) or "nothing changed"


def _told(change: ReleaseChanges, subject: str) -> str:
    if not change.beside:
        return "unknown"
    counts = [(kind, change.count(kind, subject)) for kind in KINDS]
    return ", ".join(f"{number} {kind}" for kind, number in counts if number) or "nothing"


def _cells(family: Family, subject: str) -> str:
    good, asked = family.cells(subject)
    return f"{good} of {asked}" if asked else "not asked"


class _Maker:
    """Fills the templates."""

    def __init__(self, site: Site) -> None:
        self.site, self.facts = site, site.facts
        self.environment = environment("site")
        self.environment.globals.update(
            site=site,
            told=_told,
            nav=NAV,
            when=wording.measured(site.facts.results),
            titles={failure.page: failure.title for failure in site.facts.failures},
        )

    def page(self, path: str, template: str, title: str, **values: Any) -> tuple[str, str]:
        """One page: its path and its text."""
        root = "../" * path.count("/")
        inline = values.pop("inline", None)
        csp = _csp(inline)
        values = {"title": f"{title} - kvconform", "description": title, **values}
        link = functools.partial(_check_link, root)
        found = self.environment.get_template(template)
        return path, found.render(root=root, inline=inline, csp=csp, check_link=link, **values)

    def front(self, warnings: Sequence[str]) -> tuple[str, str]:
        """The first page: it answers from what it holds, so that it needs nothing else."""
        facts = self.facts
        known = data.known(facts)
        inline = {name: Markup((TEMPLATES / "site" / f"site.{end}").read_text("utf-8")) for name, end in _INLINE}  # noqa: S704
        return self.page(
            "index.html",
            "index.html",
            "Does my torch work with my transformers?",
            inline=inline,
            warnings=warnings,
            latest=self._latest(),
            goals=[(goal, facts.pins[goal.name]) for goal in facts.goals],
            broke=self._broke(),
            pairs_json=_script(self._pairs()),
            failures_json=_script(known["failures"]),
        )

    def _latest(self) -> Pair:
        """The pair that the look-up starts with: the newest that was measured."""
        answered = [pair for pair in self.facts.pairs if self.facts.answer(pair)]
        return max(answered, key=self.facts.pairs.index, default=("", ""))

    def _broke(self) -> list[dict[str, str]]:
        found = []
        for axis in reversed(AXES):
            newest = [change for (name, _), change in self.facts.changes.items() if name == axis and change.beside]
            for change in newest[: MOST_BROKE // len(AXES)]:
                text = change_text(change, self.site.subjects)
                found.append({"axis": axis, "release": change.release, "before": change.before, "text": text})
        return found

    def _pairs(self) -> dict[str, Any]:
        """The answers to every pair that can be selected; each text once."""
        texts: dict[str, int] = {}
        of = {}
        for pair in self.facts.pairs:
            if pair[0] in self.site.shown["torch"] and pair[1] in self.site.shown["transformers"]:
                of["/".join(pair)] = [
                    [number, *(texts.setdefault(text, len(texts)) for text in told)]
                    for number, *told in self._lines_of(pair)
                ]
        names = [line[0] for line in self.site.lines({})]
        return {"subjects": [*names, "This pair"], "texts": list(texts), "of": of}

    def _lines_of(self, pair: Pair) -> list[tuple[int, str, str, str]]:
        """Lines as `Site.lines` has them, the name as a number; the last number is the pair as a whole."""
        whole = len(self.site.always)
        if pair in self.facts.impossible:
            return [(whole, "open", "No", ": these two cannot be installed together.")]
        measured = self.facts.cells.get(pair)
        if not measured or not measured[0].answers:
            return [(whole, "none", "Nobody has measured it.", f" {self._guess(pair)}")]
        lines = enumerate(self.site.lines(measured[0].answers))
        return [(number, tone, verdict, f"{rest}.") for number, (_, tone, verdict, rest) in lines]

    def _guess(self, pair: Pair) -> str:
        """What the nearest measured pairs answer with kvconform, told as the guess that it is."""
        near = self.facts.neighbours(pair)
        told = {words.verdict(self.facts.answer(other)).lower() for other in near}
        if not near:
            return ""
        names = ", ".join(f"{torch} with {transformers}" for torch, transformers in near)
        answer = told.pop() if len(told) == 1 else "they differ"
        return f"A guess from the nearest that were measured ({names}): {answer}."

    def pair(self, pair: Pair) -> tuple[str, str]:
        """A pair of releases."""
        facts, site = self.facts, self.site
        measured: Sequence[Measured] = facts.cells.get(pair, ())
        best = facts.answer(pair)
        impossible = facts.impossible.get(pair, "")
        works = best is not None and best.word != "no"
        near = [(other, words.sentence(facts.answer(other), facts.goals)) for other in facts.neighbours(pair)]
        install = _install(measured[0]) if measured and best else ""
        return self.page(
            f"pair/{pair[0]}/{pair[1]}/index.html",
            "pair.html",
            f"torch {pair[0]} with transformers {pair[1]}",
            pair=pair,
            measured=[] if impossible else measured,
            impossible=printable(impossible),
            lines=site.lines(measured[0].answers) if measured else [],
            other_lines=[site.lines(each.answers) for each in measured],
            neighbours=near if impossible or not best else [],
            guess=self._guess(pair),
            install=install,
            code=CODE,
            better=None if works else facts.good_near(pair),
            purposes=self._purposes,
            most_causes=MOST_CAUSES,
            badge=badge_label(pair, OURS) if best else "",
        )

    def _purposes(self, one: Measured) -> list[tuple[str, list[tuple[str, str, str]]]]:
        columns = [words.purposes(one.answers.get(subject), self.facts.goals) for subject in self.site.always]
        rows = zip(*columns, strict=True)
        return [
            (row[0][0], [("" if word == "unknown" else word, WORD_TONES[word], count) for _, word, count in row])
            for row in rows
        ]

    def release(self, axis: str, release: str) -> tuple[str, str]:
        """A release of torch or transformers."""
        other = "transformers" if axis == "torch" else "torch"
        pairs = [pair for pair in reversed(self.facts.pairs) if pair[axis != "torch"] == release]
        rows = []
        unmeasured = [pair for pair in pairs if pair not in self.facts.cells and pair not in self.facts.impossible]
        for pair in pairs:
            if pair in unmeasured:
                continue
            cells = []
            for subject in self.site.subjects:
                one = self.facts.answer(pair, subject)
                text = "no install" if pair in self.facts.impossible else words.short(one)
                whole = "" if one is None else words.sentence(one, self.facts.goals)
                cells.append((words.mark(one)[1], text, whole))
            rows.append((pair, f"{other} {pair[axis == 'torch']}", cells))
        change = self.facts.changes.get((axis, release))
        return self.page(
            f"{axis}/{release}/index.html",
            "release.html",
            f"{axis} {release}",
            axis=axis,
            release=release,
            other=other,
            answer=self._release_answer(pairs, axis),
            rows=rows,
            unmeasured=[(pair, pair[axis == "torch"]) for pair in unmeasured],
            change=change,
            tones=TONES,
        )

    def _release_answer(self, pairs: Sequence[Pair], axis: str) -> str:
        told = {word: [] for word in ("yes", "partly", "no")}  # type: dict[str, list[str]]
        for pair in reversed(pairs):
            one = self.facts.answer(pair)
            if one and one.word in told:
                told[one.word].append(pair[axis == "torch"])
        if not any(told.values()):
            return "Nobody has measured this release"
        names = {"yes": "works with", "partly": "partly with", "no": "does not with"}
        other = "transformers" if axis == "torch" else "torch"
        parts = [f"{names[word]} {other} {', '.join(found)}" for word, found in told.items() if found]
        return f"With kvconform it {'; '.join(parts)}"

    def failure(self, failure: Failure) -> tuple[str, str]:
        """A known failure: its page in docs/known-failures, and what was measured."""
        pages = {one.page for one in self.facts.failures}

        def link(target: str) -> str | None:
            if target.startswith(("http://", "https://")):
                return target
            name = target.removesuffix(".md")
            return f"../{name}/index.html" if name in pages else None

        return self.page(
            f"failure/{failure.page}/index.html",
            "failure.html",
            failure.title,
            failure=failure,
            body=markdown.render(failure.text, link),
            seen=ranges(failure.pairs, self.facts.releases["transformers"]),
        )

    def check(self, family: Family) -> tuple[str, str]:
        """A family of checks on every pair."""
        rows = []
        for release in self.site.shown["transformers"]:
            cells = []
            for torch in self.site.shown["torch"]:
                pair = (torch, release)
                lines = [_line(family.counts.get(subject, {}).get(pair)) for subject in self.site.subjects]
                cells.append((pair, lines if pair in self.facts.cells else None))
            rows.append((release, cells))
        return self.page(
            f"check/{family.name}/index.html",
            "check.html",
            family.name,
            family=family.name,
            ids=family.ids,
            answer=family_answer(family),
            torches=self.site.shown["torch"],
            rows=rows,
        )


_INLINE = (("style", "css"), ("script", "js"))


def badge_label(pair: Pair, subject: str) -> str:
    """What a badge is about: it tells the subject."""
    return f"torch {pair[0]} · transformers {pair[1]}, {wording.subject_name(subject)}"


def _line(counts: tuple[int, int] | None) -> tuple[str, str]:
    if counts is None:
        return "none", "n/a"
    passed, asked = counts
    tone = "good" if passed == asked else "bad" if not passed else "open"
    return tone, f"✓ {asked}" if passed == asked else f"✗ {passed}/{asked}"


def _install(measured: Measured) -> str:
    packages = measured.run.environment.packages
    names = [f"{name}=={packages[name].split('+')[0]}" for name in ("torch", "transformers") if name in packages]
    return f"pip install {' '.join(names)}" if names else ""


def _check_link(root: str, check: str) -> str:
    return f"{root}check/{check.partition('[')[0]}/index.html"


def _csp(inline: Mapping[str, Any] | None) -> dict[str, str]:
    """What the page's own policy lets through: two files of the site, or the two texts that the page holds."""
    if inline is None:
        return {"style": "'self' file:", "script": "'self' file:"}
    return {name: f"'sha256-{_hash(text)}'" for name, text in inline.items()}


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script(document: Any) -> Markup:
    """JSON that can stand in a script element."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - no tag can begin in it
