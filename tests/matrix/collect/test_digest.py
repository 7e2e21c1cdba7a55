from __future__ import annotations

from pathlib import Path

from matrix.collect.digest import suite_digest


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
