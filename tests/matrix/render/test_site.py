"""The site as files: every link leads somewhere, every answer is the records', every document fits its schema."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from matrix.cells import axes as axes_module
from matrix.judge.baseline import Baseline
from matrix.judge.publications import publication
from matrix.judge.table import judge_table, table_of
from matrix.records.lines import Selection
from matrix.records.optin import joined
from matrix.render.grid import results
from matrix.render.site import build, markdown
from matrix.render.site.facts import facts
from matrix.render.site.families import families
from matrix.render.site.pages import pages
from matrix.render.site.shown import site_of
from tests.matrix.factories import record, run
from tests.matrix.render.conftest import NASTY, ROWS, earlier_runs, site_results, site_runs, small_axes

FIRST_SCREEN = 60_000
"""Bytes of the first page, compressed."""


class Page(HTMLParser):
    """What a browser would see: the tags, the ids, the addresses, the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def told(self) -> str:
        return " ".join(self.text.split())


def html(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_kind_of_address_is_there(site: Path) -> None:
    for address in (
        "torch/2.9",
        "transformers/4.57",
        "pair/2.9/4.57",
        "failure/vmap-masks",
        "check/model/exported-decode",
        "pins/newest",
        "changes",
        "architecture",
        "architecture/mistral",
        "data",
    ):
        assert (site / address / "index.html").is_file(), address


def test_the_addresses_that_the_documents_name_are_there(site: Path) -> None:
    root = Path(__file__).parents[3]
    table = re.findall(r"^\| (`/[^|]*) \|", (root / "docs" / "reading-the-table.md").read_text("utf-8"), re.MULTILINE)
    named = [address for cell in table for address in re.findall(r"`/([^`]*)`", cell)]
    named += re.findall(
        r"`((?:pair|pins|transformers|changes|index\.html)[/#][^` ]*)`", (root / "README.md").read_text("utf-8")
    )
    assert len(named) >= 15
    for address in named:
        path, fragment = urldefrag(address)
        there = site / path / "index.html" if path.endswith("/") or not path else site / path
        assert there.is_file(), address
        assert not fragment or f'id="{fragment}"' in there.read_text(encoding="utf-8"), address


def test_no_link_is_dead_and_none_asks_another_server(site: Path) -> None:
    pages = {path: Page(path) for path in html(site)}
    ids = {path: {value for _, name, value in page.attributes if name == "id"} for path, page in pages.items()}
    for path, page in pages.items():
        for tag, name, value in page.attributes:
            if name not in ("href", "src") or value == "data:,":
                continue
            if value.startswith("https://"):
                assert tag == "a", (path, value)
                continue
            target, fragment = urldefrag(unquote(value))
            there = (path.parent / target).resolve() if target else path
            assert there.is_file(), (path, value)
            assert not fragment or fragment in ids[there], (path, value)


def test_nothing_is_loaded_from_elsewhere_and_ids_are_unique(site: Path) -> None:
    for path in html(site):
        page = Page(path)
        ids = [value for _, name, value in page.attributes if name == "id"]
        assert len(ids) == len(set(ids)), path
        assert not [name for _, name, _ in page.attributes if name.startswith("on")], path
        assert page.tags.count("img") <= 1, path
        assert "Content-Security-Policy" in path.read_text(encoding="utf-8")
    for name in ("site.css", "site.js"):
        text = (site / "assets" / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|url\(|@import", text)


def test_odd_texts_are_text(site: Path) -> None:
    page = Page(site / "pair" / "2.9" / "5.0" / "index.html")
    assert page.tags.count("script") == 1
    assert NASTY[:60] in page.text
    assert "\\x07\\x1b[31m\\xd800" in page.text
    assert "torch is too old <img" in Page(site / "pair" / "2.8" / "5.23" / "index.html").text
    for path in site.rglob("*"):
        if path.suffix in {".html", ".svg", ".xml"}:
            assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", path.read_text(encoding="utf-8")), path


def test_the_first_line_answers(site: Path) -> None:
    def told(address: str) -> str:
        return Page(site / address / "index.html").told

    assert "With kvconformYes: all 6 checks pass." in told("pair/2.15/5.23").replace(" Yes", "Yes")
    assert "No: plain caches (0 of 2)" in told("pair/2.15/5.23")
    known = told("pair/2.8/4.57")
    assert "Yes, except exported models (0 of 2): 2 of 6 checks fail, for known reasons." in known
    assert "With kvconform and its patchesNot measured." in known.replace(" Not", "Not")
    assert "Nobody has measured this pair." in told("pair/2.7/5.23")
    assert "A guess from the nearest that were measured (" in told("pair/2.7/5.23")
    assert "No: these two cannot be installed together." in told("pair/2.8/5.23")
    assert "With kvconform it works with torch 2.7, 2.8, 2.9, 2.15" in told("transformers/4.57")
    assert "or use transformers 5.0 or later" in told("failure/vmap-masks")
    assert "First goodtransformers 5.0, or torch 2.9" in told("failure/vmap-masks").replace(
        " transformers", "transformers"
    )
    assert "With kvconform it passes in 10 of 14 pairs" in told("check/model/exported-decode")
    assert "torch 2.15.1 with transformers 5.23.3." in told("pins/newest")
    assert "Nothing measured yet." in told("pins/executorch")
    assert "onnx==1.20.0" in told("pins/onnx")


def test_lines_to_paste_are_for_the_subject_that_does_more(site: Path) -> None:
    ours = Page(site / "pair" / "2.9" / "4.57" / "index.html").told
    assert "Lines to paste, with kvconform pip install torch==2.9.1" in ours
    assert 'pip install "kvconform @ git+https://example.org/kvconform"' in ours
    assert "with register_flattening_functions(patch_transformers=True):" in ours
    patched = Page(site / "pair" / "2.8" / "4.53" / "index.html").told
    assert "Lines to paste, with kvconform and its patches" in patched
    assert "with exportable():" in patched


def test_what_a_pair_is_good_for_tells_what_the_releases_lack(site: Path) -> None:
    rows = Page(site / "pair" / "2.15" / "5.23" / "index.html").told
    assert "static cachesyes 2 of 2" in rows.replace("caches yes", "cachesyes")
    assert "encoder-decodern/a: the releases lack it" in rows
    assert "ExecuTorchnot measured" in rows
    assert "ONNXyes 1 of 1" in rows
    assert "AOTInductoryes 1 of 1" in rows
    # A check on request is none of those that every pair is asked, and changes no verdict.
    assert "Yes, except ONNX (0 of 1): all 6 checks pass beside that." in rows


def test_who_asked_stands_beside_the_answer(site: Path) -> None:
    told = Page(site / "pair" / "2.9" / "4.57" / "index.html").told
    assert told.count("Measured 2026-11-21 by suite dddddddd, on Python 3.11 and a CPU.") == 1
    older = Page(site / "pair" / "2.9" / "5.23" / "index.html").told
    assert "Measured 2026-11-18 to 2026-11-20 by suite eeeeeeee, not by the newest, dddddddd, on" in older
    document = json.loads((site / "pair" / "2.9" / "5.23" / "data.json").read_text(encoding="utf-8"))
    assert document["cells"][0]["earliest"] == "2026-11-18T09:00:00Z"


def test_an_unmeasured_pair_guesses_for_each_subject(site: Path) -> None:
    told = Page(site / "pair" / "2.7" / "5.23" / "index.html").told
    assert "A guess from the nearest that were measured (" in told
    assert "): with kvconform, yes;" in told
    assert "transformers alone, no." in told
    assert "To measure it, in a clone: python -m nox -s \"conformance(torch='2.7', transformers='5.23')\"" in told


def test_a_second_lane_is_on_the_page_of_its_pair(site: Path) -> None:
    told = Page(site / "pair" / "2.15" / "5.23" / "index.html").told
    assert "Python 3.11, cpu" in told
    assert "Python 3.11, cuda" in told
    assert "-- --device=cuda" in told


def test_what_a_release_changed(site: Path) -> None:
    told = Page(site / "transformers" / "5.0" / "index.html").told
    assert "What it broke and repaired, against 4.57" in told
    assert "repaired, 2 checks Models do not export: masks are made with vmap" in told
    feed = ET.fromstring((site / "changes" / "feed.xml").read_text(encoding="utf-8"))
    space = "{http://www.w3.org/2005/Atom}"
    entries = feed.findall(f"{space}entry")
    assert "with kvconform: 2 repaired" in next(
        entry.findtext(f"{space}summary") or ""
        for entry in entries
        if entry.findtext(f"{space}title") == "transformers 5.0"
    )
    for entry in entries:
        link = entry.find(f"{space}link")
        assert link is not None
        assert (site / "changes" / urldefrag(link.attrib["href"])[0]).resolve().is_file()


def test_a_check_tells_what_it_proves_and_who_was_not_asked(site: Path) -> None:
    page = Page(site / "check" / "model" / "exported-decode" / "index.html")
    assert "With kvconform it passes in 10 of 14 pairs. A pass proves: " in page.told
    assert "model/exported-decode" in Page(site / "check" / "index.html").told
    places = list(re.findall(r"<i class=\"none\">([^<]*)</i>", page.source))
    assert set(places) == {"·"}


def test_which_architectures_export(site: Path, tmp_path: Path) -> None:
    told = Page(site / "architecture" / "index.html").told
    first = "With kvconform and its patches, 2 of 2 architectures export, on torch 2.15 with transformers 5.23"
    assert f"{first}; 1 more cannot be made tiny, or have no cache." in told
    assert first in Page(site / "index.html").told
    mistral = Page(site / "architecture" / "mistral" / "index.html").told
    assert "MistralForCausalLM" in mistral
    assert "MistralForTokens" in mistral
    assert "torch 2.9, transformers 4.57" in mistral
    moe = Page(site / "architecture" / "qwen3-moe" / "index.html")
    assert "with kvconform, partly; with kvconform and its patches, yes; transformers alone, partly." in moe.told
    assert "img" not in moe.tags
    assert NASTY[:30] in moe.text
    odd = Page(site / "architecture" / "odd" / "index.html").told
    assert "with kvconform, not asked" in odd
    assert "no cache at all" in odd
    build.write(results(site_runs(), Baseline(ROWS)), tmp_path, axes=small_axes())
    told = Page(tmp_path / "architecture" / "index.html").told
    assert told.count("Nobody has published which architectures export.") == 1
    assert "-- --category architectures" in told


def test_what_changed_since_the_last_publication(site: Path, tmp_path: Path) -> None:
    told = Page(site / "changes" / "index.html").told
    assert "Measured 2026-11-21: 3 cells, 1 of them for the first time; with kvconform: 1 fixed." in told
    assert "With kvconform: 1 newly asked and passing, 1 fixed" in told
    assert "it was wrong" in told
    assert "Measured 2026-11-21 against what was published before: 3 cells" in Page(site / "index.html").told
    feed = (site / "changes" / "feed.xml").read_text(encoding="utf-8")
    assert "<title>Measured 2026-11-21</title>" in feed
    assert "1 of them for the first time; with kvconform: 1 newly asked and passing, 1 fixed" in feed
    build.write(results(site_runs(), Baseline(ROWS)), tmp_path, axes=small_axes())
    assert "Nothing was published since" in Page(tmp_path / "changes" / "index.html").told
    assert "against what was published before" not in Page(tmp_path / "index.html").told


def test_the_first_screen_is_small(site: Path) -> None:
    assert len(gzip.compress((site / "index.html").read_bytes())) <= FIRST_SCREEN


def test_the_published_first_screen_is_small() -> None:
    from matrix.render import report

    found = facts(report.load(Path(__file__).parents[3] / "reports" / "records.parquet"), axes_module.load())
    path, text = next(pages(site_of(found, families(found)), [], parquet=True))
    assert path == "index.html"
    assert len(gzip.compress(text.encode())) <= FIRST_SCREEN


def test_a_failure_is_seen_in_the_architectures_that_show_it() -> None:
    says = "KeyError: \"attribute 'scale' already exists\""
    asked = run(
        record("architectures/exported-decode[A]", "fail", message=says),
        torch="2.9",
        transformers="4.57",
        selection=Selection(categories=("architectures",)),
    )
    extra = judge_table(table_of(joined([asked])), Baseline(ROWS))
    found = facts(dataclasses.replace(results(site_runs(), Baseline(ROWS)), extra=extra), small_axes())
    pairs = {one.page: one.pairs for one in found.failures}
    assert pairs["buffer-is-a-parameter"] == [("2.9", "4.57")]
    assert pairs["another-structure"] == []


def test_the_same_records_give_the_same_bytes_and_what_is_gone_goes(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(site, folder)
    (folder / "mine.txt").write_text("not the site's")
    found = site_results()
    published = site / "data" / "records.parquet"
    build.write(found, folder, tmp_path / "none", "https://example.org/kvconform", small_axes())
    assert not (folder / "data" / "records.parquet").exists()
    since = [publication(earlier_runs(), site_runs(), Baseline(ROWS))]
    build.write(found, folder, published, "https://example.org/kvconform", small_axes(), publications=since)
    files = {path.relative_to(site) for path in site.rglob("*") if path.is_file()}
    assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} == files | {Path("mine.txt")}
    for path in files:
        assert (folder / path).read_bytes() == (site / path).read_bytes(), path
    build.write(results([run(record("a/b"))], Baseline()), folder, axes=small_axes())
    assert not (folder / "check" / "model" / "exported-decode" / "index.html").exists()
    assert (folder / "mine.txt").exists()


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on PATH; the browser's test asks the same")
def test_the_script_parses(site: Path) -> None:
    subprocess.run(["node", "--check", str(site / "assets" / "site.js")], check=True)


def test_pages_of_failures_become_html() -> None:
    text = "# Title\n\nOne `a < b` and [other](other.md), [gone](gone.md).\n\n```python\nx < 1\n```\n\nSays: `<b>`\n"
    made = markdown.render(text, lambda target: "../other/index.html" if target == "other.md" else None)
    assert made == (
        '<p>One <code>a &lt; b</code> and <a href="../other/index.html">other</a>, gone.</p>\n'
        "<pre>x &lt; 1\n</pre>\n<p>Says: <code>&lt;b&gt;</code></p>"
    )


def test_every_posted_error_has_a_thread() -> None:
    posted = tomllib.loads((Path(__file__).parents[2] / "posted_errors.toml").read_text(encoding="utf-8"))["posted"]
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", row["thread"]) for row in posted)


@pytest.mark.parametrize("gpu", [True, False])
def test_that_no_gpu_was_measured_is_said_once(tmp_path: Path, gpu: bool) -> None:
    runs = [one for one in site_runs() if gpu or not one.cell.endswith("-cuda")]
    build.write(results(runs, Baseline(ROWS)), tmp_path, axes=small_axes())
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert index.count("nobody has measured a cell with a GPU") == (0 if gpu else 1)
