from __future__ import annotations

from pathlib import Path

from matrix.collect.digest import Suite, counts, suite, suite_digest
from matrix.paths import ROOT
from tests.matrix import factories


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_digest_tells_paths_and_bytes_apart(tmp_path: Path) -> None:
    for name, files in {
        "one": {"src/a.py": "x", "conformance/c.py": "y"},
        "same": {"conformance/c.py": "y", "src/a.py": "x", "src/notes.txt": "z", "tests/d.py": "w"},
        "moved": {"src/a.py": "x", "conformance/d.py": "y"},
        "changed": {"src/a.py": "x", "conformance/c.py": "z"},
        "shifted": {"src/a.py": "", "conformance/c.py": "xy"},
    }.items():
        for path, text in files.items():
            write(tmp_path / name, path, text)
    digests = {name: suite_digest(tmp_path / name) for name in ("one", "same", "moved", "changed", "shifted")}
    assert digests["one"] == digests["same"]
    assert len(set(digests.values())) == 4
    assert len(digests["one"]) == 64


def test_the_suite_tells_its_digests_to_the_host() -> None:
    found = suite(ROOT)
    assert {"kvconform", "native", "kvconform with patches", "exporter"} <= set(found.checks)
    assert {"registration", "round-trip", "export"} <= found.categories
    assert len(found.digest) == 64


def test_only_an_answer_about_the_present_sources_is_current() -> None:
    present = Suite("x", {"kvconform": {"export": "1"}})
    about = [("1", "kvconform"), ("2", "kvconform"), ("", "kvconform"), ("1", "native")]
    run = factories.run(*(factories.record(sources=digest, subject=subject) for digest, subject in about))
    assert present.current(counts([run])) == 1
