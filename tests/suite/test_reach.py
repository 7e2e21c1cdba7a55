"""Planted changes make exactly the answers stale that can have changed: none is missed, and few are asked in vain."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvconform_conformance.runner import optin, reach
from kvconform_conformance.runner.reach import START, SUITE, Sources, digests, library, suite_digest
from kvconform_conformance.runner.syntax import Module

pytest.importorskip("transformers", reason="the suite is about transformers")

OPT_IN = set(optin.PACKAGES)
"""Categories some of whose examples use the library itself, whatever the subject."""
IMPORTS = """
import importlib, json, os, pathlib, sys
import pytest, torch, torch.export, transformers, transformers.cache_utils
for name in sys.argv[1:]:
    if os.fork() == 0:
        importlib.import_module(name)
        print(json.dumps([name, [each for each in sys.modules if each.startswith("kvconform")]]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources.of((library(), SUITE))


@pytest.fixture(scope="module")
def present() -> dict[str, dict[str, str]]:
    return digests()


def pairs(sources: Sources) -> dict[tuple[str, str], list[str]]:
    """The modules that the answers of each subject and category start from."""
    tests = sorted(SUITE.glob("test_*.py"))
    return {
        (subject, reach._category(path)): [START, sources.of_test(path), *own]
        for subject, own in sources.subjects().items()
        for path in tests
    }


def stale(sources: Sources, name: str) -> set[tuple[str, str]]:
    """The subjects and categories that a planted constant in a module, or a planted byte in a file, makes stale."""
    starts = pairs(sources)
    before = {pair: sources.digest(each) for pair, each in starts.items()}
    if name in sources.data:
        path = sources.data[name]
        changed = path.read_bytes() + b"\n"
        own = Sources._own
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sources, "_own", lambda self, one: changed.hex() if one == name else own(self, one))
            after = {pair: sources.digest(each) for pair, each in starts.items()}
    else:
        module = sources.module(name)
        tree = ast.parse(module.path.read_bytes())
        tree.body.append(ast.parse("PLANTED = 1").body[0])
        sources._known[name] = Module(name, module.path, tree)
        after = {pair: sources.digest(each) for pair, each in starts.items()}
        sources._known[name] = module
    return {pair for pair in before if before[pair] != after[pair]}


def test_each_planted_change_makes_exactly_those_stale_that_reach_it(sources: Sources) -> None:
    starts = pairs(sources)
    for name in [*sources.modules, *sources.data]:
        wanted = {
            pair for pair, each in starts.items() if any(name in sources.reach(start) for start in each)
        }  # what `test_nothing_that_python_imports_is_missed` holds against Python itself
        assert stale(sources, name) == wanted, name


def test_nothing_that_python_imports_is_missed(sources: Sources) -> None:
    names = [sources.of_test(path) for path in sorted(SUITE.glob("test_*.py"))]
    started = [START, "kvconform.register", "kvconform.patches.context", *names]
    found = subprocess.run(
        [sys.executable, "-c", IMPORTS, *started], capture_output=True, text=True, check=True, timeout=200
    )
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert [name for name, _ in lines] == started
    for name, imported in lines:
        assert set(imported) <= sources.reach(name), name


def test_what_the_library_does_is_asked_of_its_subjects_alone(sources: Sources) -> None:
    found = stale(sources, "kvconform.register")
    categories = {category for _, category in pairs(sources)}
    assert {pair for pair in found if pair[0].startswith("kvconform")} == {
        (subject, category) for subject in ("kvconform", "kvconform with patches") for category in categories
    }
    assert {category for subject, category in found if subject in ("native", "exporter")} <= OPT_IN


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("kvconform.patches.sliding_windows", {"kvconform with patches"}),
        ("kvconform_conformance.runner.plugin", {"", "kvconform", "kvconform with patches", "native", "exporter"}),
        ("kvconform_conformance.runner.summary", set()),
        ("kvconform.doctor", set()),
        ("kvconform/data/known.json", set()),
        ("kvconform/py.typed", set()),
    ],
)
def test_whose_answers_a_change_reaches(sources: Sources, name: str, wanted: set[str]) -> None:
    found = {pair for pair in stale(sources, name) if pair[1] not in OPT_IN}
    assert {subject for subject, _ in found} == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("kvconform.kvcache.mask", {"kvcache"}),
        ("kvconform_conformance.test_archive", {"archive"}),
        ("kvconform_conformance.runner.fresh", {"archive"}),
        ("kvconform/export/tiny.json", {"generate"}),
    ],
)
def test_which_category_a_change_reaches(sources: Sources, name: str, wanted: set[str]) -> None:
    found = {category for subject, category in stale(sources, name) if subject == "native"}
    assert wanted <= found <= wanted | (OPT_IN if wanted & OPT_IN else set())


def test_the_default_run_has_each_category(present: dict[str, dict[str, str]]) -> None:
    assert set(present) == {"", "kvconform", "kvconform with patches", "native", "exporter"}
    assert {len(found) for found in present.values()} == {len(list(SUITE.glob("test_*.py")))}
    assert suite_digest(present) == suite_digest(digests())


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


LIBRARY = {
    "kvconform/__init__.py": (
        'import importlib\n_WHERE = {"far": ("thing",), "deep.er": ("other",)}\n'
        'def __getattr__(name):\n    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)\n'
    ),
    "kvconform/far.py": "thing = 1",
    "kvconform/near.py": "from . import beside",
    "kvconform/beside.py": "from .deep import er",
    "kvconform/deep/__init__.py": "'words'",
    "kvconform/deep/er.py": "other = 1",
    "kvconform/deep/data.json": "{}",
    "kvconform/deep/script.py": "",
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("import kvconform", set()),
        ("import kvconform\nkvconform.thing", {"far"}),
        ("import kvconform as k\ndef f(): return k.other", {"deep", "deep.er"}),
        ("import kvconform\ngetattr(kvconform, name)", {"far", "deep", "deep.er"}),
        ("import kvconform\nkvconform.__path__", set()),
        ("from kvconform import thing", {"far"}),
        ("from kvconform import *", {"far", "deep", "deep.er"}),
        ("def later():\n    from kvconform.deep.er import other", {"deep", "deep.er"}),
        ("from kvconform import near", {"near", "beside", "deep", "deep.er"}),
        ("run('kvconform.beside')", {"beside", "deep", "deep.er"}),
        ("run('kvconform.deep')", {"deep"}),
        ("run('import sys; from kvconform import thing; thing()')", {"far"}),
        ("open('data.json')", {"kvconform/deep/data.json"}),
        ("open('deep/data.json')", {"kvconform/deep/data.json"}),
        ("'''kvconform.far in a docstring'''", set()),
        ("# from kvconform import thing", set()),
        ("raise ValueError('kvconform.thing is not to be had')", set()),
    ],
)
def test_how_a_module_reaches_another(tmp_path: Path, text: str, wanted: set[str]) -> None:
    write(tmp_path, LIBRARY)
    suite = write(tmp_path / "suite", {"test_one.py": text})
    sources = Sources.of([tmp_path / "kvconform"])
    found = sources.reach(sources.of_test(suite / "test_one.py"))
    names = {name.removeprefix("kvconform.") for name in found if not name.startswith("suite:")}
    assert names - {"kvconform"} == wanted


def test_a_conftest_counts_for_every_category(tmp_path: Path) -> None:
    suite = write(tmp_path, {"test_one.py": "x = 1", "test_two.py": "x = 1"})
    before = digests(suite)
    write(suite, {"conftest.py": "x = 1"})
    after = digests(suite)
    assert all(before[subject][category] != after[subject][category] for subject in before for category in after[""])


def test_the_same_sources_elsewhere_have_the_same_digests(tmp_path: Path, present: dict[str, dict[str, str]]) -> None:
    """As where a wheel was installed: beside each other, under another folder."""
    for package in (library(), SUITE):
        for path in package.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = tmp_path / package.name / path.relative_to(package)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-S", "-m", reach.__name__]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert json.loads(found.stdout) == {"suite": suite_digest(present), "checks": present}
