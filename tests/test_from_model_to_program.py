"""The scripts of docs/from-model-to-program and of examples/ run as they stand, in a process of their own, offline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the scripts are about transformers")

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "from-model-to-program").glob("*.md"))
NEEDED = {
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "executorch": ("executorch",),
    "chat_onnx": ("onnx", "onnxscript", "onnxruntime"),
}
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# Hugging Face's libraries refuse to download when this is set.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}


def require(name):
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package)


def script_of(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1, f"{page.name} has {len(blocks)} scripts, expected one that is whole"
    return blocks[0]


def run(arguments, folder):
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | OFFLINE, capture_output=True, text=True, check=False, timeout=540
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_script_of_a_page_generates_the_tokens_of_the_model(page, tmp_path):
    require(page.stem)
    script = tmp_path / "script.py"
    script.write_text(script_of(page), encoding="utf-8")
    assert "the model's tokens: True" in run([script], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_script_of_a_page_is_whole(page):
    """What needs a package that is not installed here is at least Python that imports what it uses."""
    compile(script_of(page), str(page), "exec")


def test_each_page_is_reached_from_the_first():
    first = (ROOT / "docs" / "from-model-to-program.md").read_text(encoding="utf-8")
    assert all(f"(from-model-to-program/{page.name})" in first for page in PAGES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_answers_each_line(example, tmp_path):
    require(example.stem)
    said = run([example, "--bundle", tmp_path / "kept", "--tokens", "5", "hello", "and you?"], tmp_path)
    assert said.count("\n") == 2
    assert (tmp_path / "kept" / "manifest.json").is_file()


def test_the_second_run_of_an_example_takes_the_programs_that_were_kept(tmp_path):
    chat = ROOT / "examples" / "chat.py"
    arguments = [chat, "--bundle", tmp_path / "kept", "--tokens", "5", "hello"]
    first, manifest = run(arguments, tmp_path), tmp_path / "kept" / "manifest.json"
    written = manifest.stat().st_mtime_ns
    assert run(arguments, tmp_path) == first
    assert manifest.stat().st_mtime_ns == written
