"""Records and baseline into everything that is published. The same input gives the same bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from matrix.errors import ExitCode, UserError
from matrix.judge.baseline import DEFAULT, Baseline, load_baseline
from matrix.judge.findings import findings, some
from matrix.judge.flaky import flakes
from matrix.judge.publications import Publication
from matrix.judge.table import judge_table, table_of, table_of_file
from matrix.records.lines import CellRun
from matrix.records.optin import NAME, joined, split
from matrix.records.sources import latest, read_good, together
from matrix.records.writing import put
from matrix.render import architectures, figures, on_request, tables, wording
from matrix.render.grid import Results, results, results_of
from matrix.render.site import build
from matrix.render.summary import MOST_NAMES

OPEN, CLOSE = "<!-- table -->", "<!-- /table -->"


def load(records: Path | Sequence[Path], baseline_path: Path = DEFAULT) -> Results:
    """Read, judge, count and lay out the records of some folders and files; the newest run of a cell counts.

    A bad file withholds nothing but itself: the results tell it as `bad`.

    Raises:
        UserError: there is no record, every file of records is bad, or the baseline is malformed.
    """
    sources = [records] if isinstance(records, Path) else list(records)
    baseline = load_baseline(baseline_path)
    beside = [path for source in sources if (path := opt_in_file(source)) and path.is_file()]
    extra, bad = read_good(*beside) if beside else ([], [])
    if len(sources) == 1 and sources[0].is_file() and sources[0].suffix == ".parquet":
        table = table_of_file(sources[0])
        if table is not None and table.runs:
            return _with_extra(results_of(table, baseline), extra, bad, baseline)
    runs, more = read_good(*sources)
    if not runs and more:
        raise together(more)
    whole, opt_in = split(runs)
    found = dataclasses.replace(results(latest(whole or runs), baseline), flakes=tuple(flakes(whole or runs)))
    return _with_extra(found, [*extra, *opt_in] if whole else [], [*bad, *more], baseline)


def opt_in_file(published: Path) -> Path | None:
    """Where the answers to opt-in categories lie beside a file of published records."""
    return published.with_name(NAME) if published.suffix == ".parquet" and published.name != NAME else None


def _with_extra(found: Results, opt_in: Sequence[CellRun], bad: Sequence[UserError], baseline: Baseline) -> Results:
    """The results with the answers to opt-in categories, and the files that could not be read."""
    runs = joined(opt_in)
    extra = judge_table(table_of(runs), baseline) if runs else None
    return dataclasses.replace(found, extra=extra, bad=tuple(each.message for each in bad))


def write(
    records: Path | Sequence[Path],
    out_dir: Path,
    baseline_path: Path = DEFAULT,
    readme: Path | None = None,
    site_dir: Path | None = None,
) -> ExitCode:
    """Judge the records and write what `publish` writes.

    Returns:
        What the verdicts of all cells add up to: 0, 1 for a regression, a stale row, or a run without an end, or 2
        where a file of records is bad; the others are published.

    Raises:
        UserError: there is no good record, or the baseline is malformed; nothing is written then.
    """
    found = load(records, baseline_path)
    publish(found, out_dir, site_dir, readme)
    return code(found)


def publish(  # noqa: PLR0913 - what is written, and where
    found: Results,
    out_dir: Path,
    site_dir: Path | None = None,
    readme: Path | None = None,
    summary: Path | None = None,
    *,
    library: Path | None = None,
    parquet: Path | None = None,
    repository: str = "",
    publications: Sequence[Publication] = (),
) -> None:
    """Write the tables, figure and badges, the site, and the table into a README that has its markers.

    Args:
        found: the results.
        out_dir: where the tables, figure and badges go: what is committed. Badges of cells that are no longer there
            are removed.
        site_dir: where the site and copies of the tables go: what is built and not committed. Without it, no site.
        readme: a README whose block between `<!-- table -->` and `<!-- /table -->` is renewed.
        summary: a file to which Markdown for a CI job is appended ($GITHUB_STEP_SUMMARY).
        library: where the summary that travels with the library is renewed.
        parquet: the published records, which become part of the site.
        repository: the address of the repository, for the site's links to it.
        publications: what each publication changed, the latest first, for the site.

    Raises:
        UserError: the README lacks its markers, and nothing is written then; or something could not be written.
    """
    # The README is read first: with its markers gone nothing is written at all.
    renewed = refreshed(_read(readme), found, out_dir.name) if readme else ""
    committed = _committed(found)
    for folder in {out_dir: None, site_dir: None} if site_dir else {out_dir: None}:
        for name, text in committed.items():
            put(folder / name, text)
    _put_badges(out_dir / "badges", figures.badges(found))
    if site_dir is not None:
        facts = build.write(found, site_dir, parquet, repository, publications=publications)
        if library is not None:
            put(library, build.known_json(facts))
    if readme is not None:
        put(readme, renewed)
    if summary is not None:
        with summary.open("a", encoding="utf-8") as stream:
            stream.write(tables.step_summary(found))


def code(found: Results) -> ExitCode:
    """What the verdicts of all cells add up to. That some cells cannot be made is a fact about releases, no failure."""
    if found.bad:
        return ExitCode.USAGE
    return ExitCode.REGRESSION if reasons(found) else ExitCode.OK


def reasons(found: Results) -> list[str]:
    """Why the code is 1, a line a cause."""
    lines = [f"{row.check}: the baseline row explains nothing in any cell" for row in found.unused]
    for place in found.places:
        if place.run and not place.run.complete:
            lines.append(f"{place.cell.id}: the run did not reach its end")
        lines += [
            f"{place.cell.id}: {cause.label}: {some(cause.ids, MOST_NAMES)}"
            for cause in findings(place.verdicts())
            if cause.verdict in ("regressed", "fixed")
        ]
    return lines


def refreshed(readme: str, found: Results, folder: str = "reports") -> str:
    """A README with the block between its markers renewed.

    Raises:
        UserError: the markers are not there, once and in order.
    """
    if readme.count(OPEN) != 1 or readme.count(CLOSE) != 1 or readme.index(OPEN) > readme.index(CLOSE):
        raise UserError(f"the README needs one {OPEN} and, after it, one {CLOSE}", "edit README.md")
    before, rest = readme.split(OPEN)
    after = rest.split(CLOSE)[1]
    return f"{before}{OPEN}\n{_block(found, folder)}\n{CLOSE}{after}"


def _read(readme: Path) -> str:
    try:
        return readme.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{readme} cannot be read: {error}", f"ls -l {readme}") from None


def _block(found: Results, folder: str) -> str:
    alternative = ". ".join(
        f"{wording.subject_name(subject)}, {wording.headline(found, subject)}" for subject in found.subjects
    )
    links = f"[as text]({folder}/table.md), [as data]({folder}/table.csv)"
    picture = f"[![{alternative}]({folder}/figure.svg)]({folder}/table.md)"
    worth = architectures.sentence(found, folder)
    return "\n\n".join([picture, f"{wording.measured(found)}; {links}.", *([worth] if worth else [])])


def _committed(found: Results) -> dict[str, str]:
    return {
        "table.md": tables.markdown(found),
        "table.csv": tables.as_csv(found),
        "figure.svg": figures.figure(found),
        **architectures.files(found),
        **on_request.files(found),
    }


def _put_badges(folder: Path, files: dict[str, str]) -> None:
    for old in folder.glob("*"):
        if old.name not in files and old.suffix in {".json", ".svg"}:
            old.unlink()
    for name, text in files.items():
        put(folder / name, text)
