from __future__ import annotations

from pathlib import Path

from matrix.digest import suite_digest


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_digest_tells_paths_and_bytes_apart(tmp_path: Path) -> None:
    for name, files in {
        "one": {"a.py": "x", "b/c.py": "y"},
        "same": {"b/c.py": "y", "a.py": "x", "notes.txt": "z"},
        "moved": {"a.py": "x", "b/d.py": "y"},
        "changed": {"a.py": "x", "b/c.py": "z"},
        "shifted": {"a.py": "", "b/c.py": "xy"},
    }.items():
        for path, text in files.items():
            write(tmp_path / name, path, text)
    digests = {name: suite_digest(tmp_path / name) for name in ("one", "same", "moved", "changed", "shifted")}
    assert digests["one"] == digests["same"]
    assert len(set(digests.values())) == 4
    assert len(digests["one"]) == 64
