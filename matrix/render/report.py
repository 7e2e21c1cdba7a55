"""Records and baseline into everything that is published. The same input gives the same bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from matrix.errors import ExitCode, UserError
from matrix.judge.baseline import DEFAULT, load_baseline
from matrix.judge.findings import findings, some
from matrix.judge.flaky import flakes
from matrix.records.files import latest, read_every
from matrix.render import figures, page, tables, wording
from matrix.render.grid import Results, results
from matrix.render.summary import MOST_NAMES

OPEN, CLOSE = "<!-- table -->", "<!-- /table -->"


def load(records_dir: Path, baseline_path: Path = DEFAULT) -> Results:
    """Read, judge, count and lay out.

    Raises:
        UserError: there is no record, or a record or the baseline is malformed.
    """
    runs = read_every(records_dir)
    found = results(latest(runs), load_baseline(baseline_path))
    return dataclasses.replace(found, flakes=tuple(flakes(runs)))


def write(
    records_dir: Path,
    out_dir: Path,
    baseline_path: Path = DEFAULT,
    readme: Path | None = None,
    summary: Path | None = None,
) -> ExitCode:
    """Write the page, tables, figure and badges into a folder, and the table into a README that has its markers.

    Args:
        records_dir: where the records are; every *.jsonl below it is read.
        out_dir: where the files go. Badges of cells that are no longer there are removed.
        baseline_path: the expected non-passes.
        readme: a README whose block between `<!-- table -->` and `<!-- /table -->` is renewed.
        summary: a file to which Markdown for a CI job is appended ($GITHUB_STEP_SUMMARY).

    Returns:
        What the verdicts of all cells add up to: 0, or 1 for a regression, a stale row, or a run without an end.

    Raises:
        UserError: there is no record, or a record or the baseline is malformed; nothing is written then.
    """
    found = load(records_dir, baseline_path)
    publish(found, out_dir, readme, summary)
    return code(found)


def publish(found: Results, out_dir: Path, readme: Path | None = None, summary: Path | None = None) -> None:
    """Write what `write` writes, from results at hand."""
    # The README is read first: with its markers gone nothing is written at all.
    renewed = refreshed(readme.read_text(encoding="utf-8"), found, out_dir.name) if readme else ""
    for name, text in _files(found).items():
        _put(out_dir / name, text)
    _put_badges(out_dir / "badges", figures.badges(found))
    if readme is not None:
        _put(readme, renewed)
    if summary is not None:
        with summary.open("a", encoding="utf-8") as stream:
            stream.write(tables.step_summary(found))


def code(found: Results) -> ExitCode:
    """What the verdicts of all cells add up to. That some cells cannot be made is a fact about releases, no failure."""
    return ExitCode.REGRESSION if reasons(found) else ExitCode.OK


def reasons(found: Results) -> list[str]:
    """Why the code is 1, a line a cause."""
    lines = [f"{row.check}: the baseline row explains nothing in any cell" for row in found.unused]
    for place in found.places:
        if place.run and not place.run.complete:
            lines.append(f"{place.cell.id}: the run did not reach its end")
        lines += [
            f"{place.cell.id}: {cause.label}: {some(cause.ids, MOST_NAMES)}"
            for cause in findings(place.judged.verdicts if place.judged else ())
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


def _block(found: Results, folder: str) -> str:
    alternative = ". ".join(
        f"{wording.subject_name(subject)}, {wording.headline(found, subject)}" for subject in found.subjects
    )
    links = (
        f"[as text]({folder}/table.md), [as data]({folder}/table.json), "
        f"[page with the failing checks]({folder}/index.html)"
    )
    return f"[![{alternative}]({folder}/figure.svg)]({folder}/table.md)\n\n{wording.measured(found)}; {links}."


def _files(found: Results) -> dict[str, str]:
    return {
        "index.html": page.render(found),
        "table.md": tables.markdown(found),
        "table.csv": tables.as_csv(found),
        "table.json": tables.as_json(found),
        "figure.svg": figures.figure(found),
    }


def _put_badges(folder: Path, files: dict[str, str]) -> None:
    for old in folder.glob("*"):
        if old.name not in files and old.suffix in {".json", ".svg"}:
            old.unlink()
    for name, text in files.items():
        _put(folder / name, text)


def _put(path: Path, text: str) -> None:
    """Write a file whole or not at all, and leave one alone that already says so."""
    content = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
