"""The site's data for programs: documents that fit their schemas and hold what the records hold, badges, messages."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema

from matrix.records import parquet
from matrix.render.site.schemas import SCHEMAS
from tests.matrix.render.conftest import site_runs


def test_every_document_fits_its_schema(site: Path) -> None:
    kinds = {name: name for name in ("pair", "check", "failure", "architecture")}
    kinds |= {"torch": "release", "transformers": "release"}
    seen = set()
    for path in site.rglob("data.json"):
        kind = kinds[path.relative_to(site).parts[0]]
        jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), SCHEMAS[kind])
        seen.add(kind)
    assert seen == set(kinds.values())
    jsonschema.validate(json.loads((site / "data" / "known.json").read_text(encoding="utf-8")), SCHEMAS["known"])
    said = json.loads((site / "data" / "messages.json").read_text(encoding="utf-8"))
    jsonschema.validate(said, SCHEMAS["messages"])
    since = json.loads((site / "data" / "publications.json").read_text(encoding="utf-8"))
    jsonschema.validate(since, SCHEMAS["publications"])
    assert since["publications"]
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_data_has_what_the_records_have(site: Path) -> None:
    document = json.loads((site / "pair" / "2.8" / "4.57" / "data.json").read_text(encoding="utf-8"))
    (cell,) = document["cells"]
    failing = {(cause["subject"], name) for cause in cell["causes"] for name in cause["checks"]}
    (one,) = [each for each in site_runs() if each.cell == cell["cell"]]
    assert failing == {(each.subject, each.id) for each in one.records if each.status not in ("pass", "na", "skip")}
    assert document["subjects"]["kvconform"]["answer"] == "yes"
    assert document["subjects"]["native"]["answer"] == "no"
    assert {each.cell for each in parquet.read_headers(site / "data" / "records.parquet")} == {
        each.cell for each in site_runs()
    }


def test_badges_tell_their_subject(site: Path) -> None:
    folder = site / "pair" / "2.8" / "4.57"
    ours = json.loads((folder / "badge.json").read_text(encoding="utf-8"))
    assert ours["label"] == "torch 2.8 · transformers 4.57, with kvconform"
    assert ours["message"] == "yes"
    alone = json.loads((folder / "badge-native.json").read_text(encoding="utf-8"))
    assert (alone["label"].rpartition(", ")[2], alone["message"]) == ("transformers alone", "no")
    ET.fromstring((folder / "badge-native.svg").read_text(encoding="utf-8"))
    assert (site / "pair" / "2.15" / "4.57" / "badge-kvconform-with-patches.svg").is_file()


def test_every_message_of_a_failing_check_is_there_once(site: Path) -> None:
    """Recounted from the runs themselves: which texts, in how many cells, and the newest pair."""
    said = json.loads((site / "data" / "messages.json").read_text(encoding="utf-8"))["messages"]
    seen: dict[str, set[str]] = {}
    for one in site_runs():
        for each in one.records:
            if each.status not in ("pass", "na", "skip") and "onerror" not in each.message:
                seen.setdefault(each.message.replace("0x7f", "0x"), set()).add(one.cell)
    plain = {one["text"]: one for one in said if "onerror" not in one["text"]}
    missing = {text for text in plain if "never planned here" in text}
    assert set(plain) - missing == set(seen)
    assert {text: one["cells"] for text, one in plain.items() if text in seen} == {
        text: len(cells) for text, cells in seen.items()
    }
    alone = plain["StaticCache is not registered as a pytree node"]
    assert (alone["torch"], alone["transformers"], alone["subject"]) == ("2.15", "5.23", "native")
    masks = next(one for one in said if "active mode" in one["text"])
    assert masks["failure"] == "vmap-masks"
    (odd,) = [one for one in said if "onerror" in one["text"]]
    assert odd["text"].isprintable()
