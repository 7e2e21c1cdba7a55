from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvconform_conformance.runner.syntax import Module

SAMPLE = '''
"""Words."""
import a.b as c
CONSTANT = {"x": (1, 2.5, None, b"y", ...), **more}
@wrapped(1)
class Thing(Base, kind=2):
    """Words."""
    async def method(self, a, /, b: int = 3, *rest, key=None, **other) -> str:
        """Words."""
        match self:
            case {"x": [first, *_]} if first > 1:
                return f"{a!r:>{b}} {b=} and {'quoted'}" "joined" f"{key}"
        async with x as y:
            await [z for z in y if z]
        try:
            lambda: (yield)
        except (A, B) as error:
            raise error from None
        return u"text"
'''


def digest(folder: Path, text: str) -> str:
    path = folder / "module.py"
    path.write_text(text, encoding="utf-8")
    return Module.parse("module", path).digest


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Words."""', '"""Other words."""'),
        ('        """Words."""\n        match', "        match"),
        ("CONSTANT = ", "# A comment.\nCONSTANT  =  "),
        ('u"text"', "'text'"),
    ],
)
def test_words_and_looks_count_for_nothing(tmp_path: Path, before: str, after: str) -> None:
    assert before in SAMPLE
    assert digest(tmp_path, SAMPLE) == digest(tmp_path, SAMPLE.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2.5", "2.6"),
        ("(1, 2.5", "(True, 2.5"),
        ("first > 1", "first >= 1"),
        ("case {", "case X() if {"),
        ("kind=2", "kind=3"),
        ("key=None", "key"),
        ('b"y"', '"y"'),
        ("{a!r", "{a!s"),
        ("from None", ""),
        ("a, /, b", "a, b"),
        ("async with", "with"),
        ("import a.b as c", "import a.b"),
    ],
)
def test_each_change_of_the_code_counts(tmp_path: Path, before: str, after: str) -> None:
    assert before in SAMPLE
    if before == "case {":
        after = "case not_a_dict if {"
        changed = SAMPLE.replace('case {"x": [first, *_]} if first > 1', "case first if first > 1")
    else:
        changed = SAMPLE.replace(before, after)
    assert digest(tmp_path, SAMPLE) != digest(tmp_path, changed)


def runs(python: str) -> bool:
    """Whether it is an interpreter, and no stand-in for one that is not there."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


OTHERS = [found for minor in range(10, 15) if (found := shutil.which(f"python3.{minor}")) is not None and runs(found)]
"""The interpreters of this machine beside the one that runs the tests."""


def test_every_python_gives_the_same_digest(tmp_path: Path) -> None:
    mine = digest(tmp_path, SAMPLE)
    script = (
        "import pathlib; from kvconform_conformance.runner.syntax import Module; "
        "print(Module.parse('module', pathlib.Path('module.py')).digest)"
    )
    suite = str(Path(__file__).parents[2] / "conformance")
    for python in [sys.executable, *OTHERS]:
        found = subprocess.run(
            [python, "-S", "-c", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"PYTHONPATH": suite},
        )
        assert found.stdout.strip() == mine, python
