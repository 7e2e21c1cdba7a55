"""The site into a folder: pages, data, schemas, badges, the feed. The same input gives the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matrix.cells import axes as axes_module
from matrix.cells.axes import Axes
from matrix.judge.goals import Pins
from matrix.judge.publications import Publication
from matrix.records import optin
from matrix.records.writing import put
from matrix.render import wording
from matrix.render.figures import badge
from matrix.render.grid import Results
from matrix.render.site import architectures, data, words
from matrix.render.site.facts import AXES, Facts, Pair, facts
from matrix.render.site.families import families
from matrix.render.site.feed import feed
from matrix.render.site.messages import messages
from matrix.render.site.pages import pages
from matrix.render.site.phrases import badge_label, change_text
from matrix.render.site.schemas import SCHEMAS
from matrix.render.site.shown import Site, site_of
from matrix.render.templating import TEMPLATES

MANIFEST = "data/files.txt"
"""The files of the site, for the next one that is written here: nothing else in the folder is touched."""
PARQUET = "data/records.parquet"
OPT_IN = f"data/{optin.NAME}"
MESSAGES = "data/messages.json"
"""What the look-up of an error fetches when no known failure says it."""
PUBLICATIONS = "data/publications.json"
"""What each publication changed against the one before it."""
LIBRARY = Path("src") / "kvconform" / "data" / "known.json"
"""Where the summary travels with the library."""


def write(  # noqa: PLR0913 - what is shown, and where it goes
    results: Results,
    folder: Path,
    records: Path | None = None,
    repository: str = "",
    axes: Axes | None = None,
    *,
    publications: Sequence[Publication] = (),
) -> Facts:
    """Write the whole site, and remove what an earlier one wrote there and this one does not.

    Args:
        results: what to show.
        folder: where the files go.
        records: the published Parquet file, which becomes part of the site.
        repository: the address of the repository, for links to it.
        axes: the releases that are known (default: `matrix/data/cells.toml`).
        publications: what each publication changed, the latest first.

    Returns:
        What the site shows, for those who write more of it.

    Raises:
        UserError: a file of `matrix/data` is malformed or does not fit the others.
    """
    axes = axes or axes_module.load()
    found = facts(results, axes, repository, publications)
    site = site_of(found, families(found))
    parquet = records is not None and records.is_file()
    wanted = set()
    for path, text in _files(site, axes, parquet=parquet):
        _put(folder / path, text)
        wanted.add(path)
    if parquet and records is not None:
        shutil.copyfile(records, folder / PARQUET)
        wanted.add(PARQUET)
    if parquet and records is not None and (opt_in := records.with_name(optin.NAME)).is_file():
        shutil.copyfile(opt_in, folder / OPT_IN)
        wanted.add(OPT_IN)
    _forget(folder, wanted)
    return found


def _files(site: Site, axes: Axes, *, parquet: bool) -> Iterator[tuple[str, str]]:
    found = site.facts
    yield from pages(site, wording.warnings(found.results), parquet=parquet)
    for name in ("site.css", "site.js"):
        yield f"assets/{name}", (TEMPLATES / "site" / name).read_text(encoding="utf-8")
    yield from _documents(site)
    for name, schema in SCHEMAS.items():
        yield f"data/schemas/{name}.json", data.dump(schema)
    yield "data/known.json", known_json(found)
    yield "data/classes.json", data.dump(data.classes())
    yield MESSAGES, data.dump(messages(found))
    yield PUBLICATIONS, data.dump(data.publications(found))
    for goal, pins in found.pins.items():
        if pins:
            yield f"pins/{goal}/constraints.txt", _constraints(pins)
    texts = {key: change_text(change, site.subjects) for key, change in found.changes.items()}
    yield "changes/feed.xml", feed(found, axes, texts)


def _documents(site: Site) -> Iterator[tuple[str, str]]:
    """The data of each page, and the badges of the pairs."""
    found = site.facts
    for pair in found.pairs:
        yield f"pair/{pair[0]}/{pair[1]}/data.json", data.dump(data.pair(found, pair))
        yield from _badges(found, pair)
    for axis in AXES:
        for release in found.releases[axis]:
            yield f"{axis}/{release}/data.json", data.dump(data.release(found, axis, release))
    for failure in found.failures:
        yield f"failure/{failure.page}/data.json", data.dump(data.failure(found, failure))
    for family in site.families:
        document = data.check(family.name, family.ids, family.counts)
        yield f"check/{family.name}/data.json", data.dump(document)
    for one in found.architectures.values():
        yield f"architecture/{one.name}/data.json", data.dump(architectures.document(one))


def known_json(found: Facts) -> str:
    """The summary that travels with the library, small."""
    return data.dump(data.known(found))


def _badges(found: Facts, pair: Pair) -> Iterator[tuple[str, str]]:
    for number, subject in enumerate(found.subjects):
        one: Any = found.answer(pair, subject)
        if one is None:
            continue
        end = f"-{''.join(letter if letter.isalnum() else '-' for letter in subject)}" if number else ""
        tone = words.mark(one)[1]
        for name, text in badge("badge", badge_label(pair, subject), words.verdict(one).lower(), tone).items():
            yield f"pair/{pair[0]}/{pair[1]}/{name.replace('badge', f'badge{end}')}", text


def _constraints(pins: Pins) -> str:
    return "".join(f"{name}=={version}\n" for name, version in pins.packages.items())


def _put(path: Path, text: str) -> None:
    """Write a file of the site. Thousands of them are built anew at any time: none waits until the disk has it."""
    content = text.encode("utf-8")
    if not (path.is_file() and path.read_bytes() == content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _forget(folder: Path, wanted: set[str]) -> None:
    """Remove what an earlier site wrote and this one does not: an address must not tell what is no longer true."""
    manifest = folder / MANIFEST
    earlier = manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []
    for name in set(earlier) - wanted:
        path = (folder / name).resolve()
        if folder.resolve() in path.parents:
            path.unlink(missing_ok=True)
    put(manifest, "".join(f"{name}\n" for name in sorted(wanted)))
