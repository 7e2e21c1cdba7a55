"""The pages: what each of them is given to show."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from matrix.cells.cell import Cell
from matrix.classes.changes import changes as class_changes
from matrix.judge.architectures import QUESTIONS
from matrix.judge.baseline import NATIVE, OURS, PATCHED
from matrix.judge.failures import Failure, ranges
from matrix.judge.goals import RULE
from matrix.render import wording
from matrix.render.site import architectures, data, markdown, phrases, since, words
from matrix.render.site import inline as inlined
from matrix.render.site.facts import AXES, Measured, Pair
from matrix.render.site.families import Family
from matrix.render.site.families import answer as family_answer
from matrix.render.site.shown import Site
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
    ("Architectures", "architecture/index.html"),
    ("Known failures", "failure/index.html"),
    ("Checks", "check/index.html"),
    ("Data", "data/index.html"),
)


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
    rows = [
        (one.name, one.proves, [phrases.asked_of(one, subject) for subject in site.subjects]) for one in site.families
    ]
    yield make.page("check/index.html", "checks.html", "The checks", families=rows)
    for family in site.families:
        yield make.check(family)
    goals = [(goal, facts.pins[goal.name]) for goal in facts.goals]
    yield make.page("pins/index.html", "pins-index.html", "Which pair should I use?", goals=goals, rule=RULE)
    for goal, pins in goals:
        title = f"To {goal.want}"
        yield make.page(f"pins/{goal.name}/index.html", "pins.html", title, goal=goal, pins=pins, rule=RULE)
    changes = [(one, [phrases.changed(one, subject) for subject in site.subjects]) for one in facts.changes.values()]
    yield make.page("changes/index.html", "changes.html", "What broke?", rows=changes, since=since)
    yield from make.architectures()
    yield make.page("data/index.html", "data.html", "The data", parquet=parquet)


class _Maker:
    """Fills the templates."""

    def __init__(self, site: Site) -> None:
        self.site, self.facts = site, site.facts
        self.environment = environment("site")
        self.environment.globals.update(
            site=site,
            changed=phrases.changed,
            nav=NAV,
            when=wording.measured(site.facts.results),
            titles={failure.page: failure.title for failure in site.facts.failures},
        )

    def page(self, path: str, template: str, title: str, **values: Any) -> tuple[str, str]:
        """One page: its path and its text."""
        root = "../" * path.count("/")
        inline = values.pop("inline", None)
        csp = inlined.policy(inline)
        values = {"title": f"{title} - kvconform", "description": title, **values}
        link = functools.partial(_check_link, root)
        found = self.environment.get_template(template)
        return path, found.render(root=root, inline=inline, csp=csp, check_link=link, **values)

    def front(self, warnings: Sequence[str]) -> tuple[str, str]:
        """The first page: it answers from what it holds, so that it needs nothing else."""
        facts = self.facts
        known = data.known(facts)
        inline = {name: Markup((TEMPLATES / "site" / f"site.{end}").read_text("utf-8")) for name, end in inlined.INLINE}  # noqa: S704
        return self.page(
            "index.html",
            "index.html",
            "Does my torch work with my transformers?",
            inline=inline,
            warnings=warnings,
            latest=self._latest(),
            goals=[(goal, facts.pins[goal.name]) for goal in facts.goals],
            broke=self._broke(),
            architectures=architectures.answer(facts),
            pairs_json=inlined.script(self._pairs()),
            failures_json=inlined.script(known["failures"]),
            classes_json=inlined.script(data.classes()),
        )

    def _latest(self) -> Pair:
        """The pair that the look-up starts with: the newest that was measured."""
        answered = [pair for pair in self.facts.pairs if self.facts.answer(pair)]
        return max(answered, key=self.facts.pairs.index, default=("", ""))

    def _broke(self) -> list[dict[str, str]]:
        """The latest publication, then the newest releases of each axis: where it is told, what it is, what changed."""
        found = []
        for one in self.facts.publications[:1]:
            link, what = f"changes/index.html#{since.name(one)}", f"Measured {one.date}"
            told = since.text(one, self.site.subjects, since.BROKE)
            found.append({"link": link, "what": what, "text": told, "before": "what was published before"})
        for axis in reversed(AXES):
            newest = [change for (name, _), change in self.facts.changes.items() if name == axis and change.beside]
            for change in newest[: MOST_BROKE // len(AXES)]:
                text = phrases.change_text(change, self.site.subjects, phrases.BROKE)
                link, what = f"{axis}/{change.release}/index.html", f"{axis} {change.release}"
                found.append({"link": link, "what": what, "text": text, "before": change.before})
        return found

    def _pairs(self) -> dict[str, Any]:
        """The answers to every pair that can be selected; each text once."""
        texts: dict[str, int] = {}
        of = {}
        for pair in self.facts.pairs:
            if pair[0] in self.site.shown["torch"] and pair[1] in self.site.shown["transformers"]:
                of["/".join(pair)] = [
                    [number, *(texts.setdefault(text, len(texts)) for text in line)]
                    for number, *line in self._lines_of(pair)
                ]
        return {"subjects": self._names, "texts": list(texts), "of": of}

    @functools.cached_property
    def _names(self) -> list[str]:
        """What the lines of an answer are about: a subject each, the pair as a whole, and when it was measured."""
        return [*(phrases.upper(wording.subject_name(one)) for one in self.site.always), "This pair", "Measured"]

    def _lines_of(self, pair: Pair) -> list[tuple[int, str, str, str]]:
        """Lines as `Site.lines` has them, the name as its number in `_names`."""
        whole = len(self.site.always)
        if pair in self.facts.impossible:
            return [(whole, "open", "No", ": these two cannot be installed together.")]
        measured = self.facts.cells.get(pair)
        if not measured or not measured[0].answers:
            return [(whole, "none", "Nobody has measured it.", f" {self._guess(pair)}")]
        lines = [
            (self._names.index(name), tone, verdict, f"{rest}.")
            for name, tone, verdict, rest in self.site.lines(measured[0].answers)
        ]
        return [*lines, (whole + 1, "when", "", phrases.measured_line(measured[0], self.facts.newest_suite))]

    def _guess(self, pair: Pair) -> str:
        """What the nearest measured pairs answer for each subject: a guess, and named so."""
        near = self.facts.neighbours(pair)
        if not near:
            return ""
        parts = []
        for subject in (OURS, PATCHED, NATIVE):
            found = {words.verdict(one).lower() for other in near if (one := self.facts.answer(other, subject))}
            if found:
                answer = found.pop() if len(found) == 1 else "they differ"
                parts.append(f"{wording.subject_name(subject)}, {answer}")
        names = ", ".join(f"{torch} with {transformers}" for torch, transformers in near)
        return f"A guess from the nearest that were measured ({names}): {'; '.join(parts)}."

    def pair(self, pair: Pair) -> tuple[str, str]:
        """A pair of releases."""
        facts, site = self.facts, self.site
        measured: Sequence[Measured] = facts.cells.get(pair, ())
        best = facts.answer(pair)
        impossible = facts.impossible.get(pair, "")
        near = facts.neighbours(pair) if impossible or not best else []
        subject, code = phrases.paste(measured[0], facts.goals) if measured and best else ("", "")
        works = code or any(one.word == "yes" for other in near if (one := facts.answer(other)))
        return self.page(
            f"pair/{pair[0]}/{pair[1]}/index.html",
            "pair.html",
            f"torch {pair[0]} with transformers {pair[1]}",
            pair=pair,
            measured=[] if impossible else measured,
            impossible=printable(impossible),
            lines=site.lines(measured[0].answers) if measured else [],
            other_lines=[site.lines(each.answers) for each in measured],
            neighbours=[(other, self._short(other)) for other in near],
            guess=self._guess(pair),
            unmeasured=None if impossible or best else Cell(*pair),
            install=phrases.install_lines(measured[0], facts.repository) if code else [],
            code=code,
            code_for=subject,
            whens=[phrases.measured_line(each, facts.newest_suite) for each in measured],
            better=None if works else facts.good_near(pair),
            purposes=self._purposes,
            most_causes=MOST_CAUSES,
            badge=phrases.badge_label(pair, OURS) if best else "",
        )

    def _short(self, pair: Pair) -> str:
        """A measured pair in a line: "with kvconform yes, transformers alone no"."""
        answers = [(subject, self.facts.answer(pair, subject)) for subject in self.site.subjects]
        return ", ".join(f"{wording.subject_name(name)} {words.verdict(one).lower()}" for name, one in answers if one)

    def _purposes(self, one: Measured) -> list[tuple[str, list[tuple[str, str, str]]]]:
        shown = self.site.columns(one.answers)
        columns = [words.purposes(one.answers.get(subject), self.facts.goals) for subject in shown]
        rows = zip(*columns, strict=True)
        return [
            (
                row[0][0],
                [("" if word == "unknown" else word, phrases.WORD_TONES[word], count) for _, word, count in row],
            )
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
            classes=class_changes(data.classes(), release) if axis == "transformers" else None,
            tones=phrases.TONES,
        )

    def _release_answer(self, pairs: Sequence[Pair], axis: str) -> str:
        others = {word: [] for word in ("yes", "partly", "no")}  # type: dict[str, list[str]]
        for pair in reversed(pairs):
            one = self.facts.answer(pair)
            if one and one.word in others:
                others[one.word].append(pair[axis == "torch"])
        if not any(others.values()):
            return "Nobody has measured this release"
        names = {"yes": "works with", "partly": "partly with", "no": "does not with"}
        other = "transformers" if axis == "torch" else "torch"
        parts = [f"{names[word]} {other} {', '.join(found)}" for word, found in others.items() if found]
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

    def architectures(self) -> Iterator[tuple[str, str]]:
        """The table of the architectures, also where nobody has asked, and a page each."""
        facts, told = self.facts, architectures
        values = {"subjects": told.subjects(facts), "command": told.command(facts)}
        title = "Which architectures export?"
        yield self.page(
            "architecture/index.html",
            "architectures.html",
            title,
            answer=told.answer(facts),
            rows=told.table(facts),
            **values,
        )
        for one in facts.architectures.values():
            yield self.page(
                f"architecture/{one.name}/index.html",
                "architecture.html",
                f"Does {one.name} export?",
                one=one,
                answer=told.verdict(one, facts),
                rows=told.rows(one, facts),
                reasons=told.reasons(one, facts),
                questions=QUESTIONS,
                **values,
            )

    def check(self, family: Family) -> tuple[str, str]:
        """A family of checks on every pair."""
        rows = []
        for release in self.site.shown["transformers"]:
            cells = []
            for torch in self.site.shown["torch"]:
                pair = (torch, release)
                asked = self.facts.cells[pair][0].answers if pair in self.facts.cells else {}
                lines = [
                    phrases.mark(family.counts.get(subject, {}).get(pair), asked=subject in asked)
                    for subject in self.site.subjects
                ]
                cells.append((pair, lines if pair in self.facts.cells else None))
            rows.append((release, cells))
        return self.page(
            f"check/{family.name}/index.html",
            "check.html",
            family.name,
            family=family.name,
            proves=family.proves,
            ids=family.ids,
            answer=family_answer(family),
            torches=self.site.shown["torch"],
            rows=rows,
        )


def _check_link(root: str, check: str) -> str:
    return f"{root}check/{check.partition('[')[0]}/index.html"
