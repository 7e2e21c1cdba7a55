"""The shape of the repository: a test of its name for each module, short modules, a small clone.

A module `matrix/judge/tally.py` has its test in `tests/matrix/judge/test_tally.py`; one of `src/kvconform` in
`tests/library`, one of the suite's runner in `tests/suite`. A module whose test has another name stands in `ELSEWHERE`
with that test, and one that needs none in `UNTESTED` with the reason.
"""

from __future__ import annotations

import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MIRRORS = {
    "src/kvconform/": "tests/library/",
    "conformance/kvconform_conformance/runner/": "tests/suite/",
    "matrix/": "tests/matrix/",
}
LONGEST = 350
LARGEST, ALL_TOGETHER = 10**6, 8 * 10**6

ELSEWHERE = {
    # The library: several modules that one promise is made of.
    "src/kvconform/blocks.py": "tests/library/test_arrivals.py",
    "src/kvconform/build.py": "tests/library/test_build_and_view.py",
    "src/kvconform/view.py": "tests/library/test_build_and_view.py",
    "src/kvconform/doctor.py": "tests/library/test_shapes_and_text.py",
    "src/kvconform/flatten.py": "tests/library/test_register.py",
    "src/kvconform/known.py": "tests/library/test_explain.py",
    "src/kvconform/pins.py": "tests/library/test_explain.py",
    "src/kvconform/shapes.py": "tests/library/test_shapes_and_text.py",
    "src/kvconform/text.py": "tests/library/test_shapes_and_text.py",
    "src/kvconform/probes.py": "tests/library/layers/test_cache_kinds.py",
    "src/kvconform/layers/fast.py": "tests/library/test_planted_bugs.py",
    "src/kvconform/layers/plans.py": "tests/library/test_one_context.py",
    "src/kvconform/layers/reading.py": "tests/library/layers/test_writing.py",
    "src/kvconform/patches/*.py": "tests/library/test_patches.py",
    # One call: what it watches, derives, exports, runs and saves shows in the programs that it gives.
    "src/kvconform/export/*.py": "tests/library/export/test_decoder.py",
    # The reference cache is tested against a model of its words, and against transformers.
    "src/kvconform/kvcache/*.py": "tests/library/kvcache/test_model_based.py",
    # What a check is made of has to find the faults that are planted for it.
    "src/kvconform/checks/*.py": "tests/mutants/planted.py",
    # A whole run of the suite, in a process of its own.
    "conformance/kvconform_conformance/runner/cli.py": "tests/suite/test_check.py",
    "conformance/kvconform_conformance/runner/controller.py": "tests/suite/test_check.py",
    "conformance/kvconform_conformance/runner/listing.py": "tests/suite/test_optin.py",
    "conformance/kvconform_conformance/runner/needs.py": "tests/suite/test_optin.py",
    "conformance/kvconform_conformance/runner/plugin.py": "tests/suite/test_check.py",
    "conformance/kvconform_conformance/runner/python.py": "tests/suite/test_warm.py",
    # Machines: a scheduler and three workers, in processes of their own.
    "matrix/collect/machines/channel.py": "tests/matrix/collect/machines/test_driver.py",
    "matrix/collect/machines/worker.py": "tests/matrix/collect/machines/test_driver.py",
    # States, and what a table of judgements adds up to.
    "matrix/judge/tally.py": "tests/matrix/judge/test_aggregate.py",
    "matrix/judge/architectures.py": "tests/matrix/render/test_site.py",
    "matrix/judge/causes.py": "tests/matrix/judge/test_answers.py",
    "matrix/judge/changes.py": "tests/matrix/judge/test_answers.py",
    "matrix/render/releases.py": "tests/matrix/commands/test_compare.py",
    "matrix/judge/failures.py": "tests/matrix/judge/test_answers.py",
    "matrix/judge/goals.py": "tests/matrix/judge/test_answers.py",
    # The same results in each format, and what has to be the same in all of them.
    "matrix/commands/report.py": "tests/matrix/render/test_report.py",
    "matrix/render/figures.py": "tests/matrix/render/test_report.py",
    "matrix/render/grid.py": "tests/matrix/render/test_report.py",
    "matrix/render/tables.py": "tests/matrix/render/test_report.py",
    "matrix/render/templating.py": "tests/matrix/render/test_site.py",
    "matrix/render/text.py": "tests/matrix/render/test_site.py",
    "matrix/render/wording.py": "tests/matrix/render/test_report.py",
    "matrix/render/site/*.py": "tests/matrix/render/test_site.py",
}
UNTESTED = {
    "src/kvconform/_version.py": "one line of data",
    "src/kvconform/errors.py": "classes without logic; each error is met where it is raised",
    "conformance/kvconform_conformance/runner/fresh.py": "a script that the check archive/fresh-process runs",
    "conformance/kvconform_conformance/runner/fresh_specs.py": "a script that archive/specs-in-a-fresh-process runs",
    "matrix/errors.py": "classes without logic; tests of the commands meet each exit code",
    "matrix/paths.py": "names of folders; every test of the matrix moves them",
    "matrix/commands/portability.py": "options only; matrix/portability/runs.py does it",
}


def tracked() -> list[str]:
    """The files of the repository, also those that are not committed yet; ignored ones are not among them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


FILES = tracked()
MODULES = [name for name in FILES if name.endswith(".py") and name.startswith(tuple(MIRRORS))]


def test_of(module: str) -> str:
    """Where the test of a module stands."""
    source, tests = next((source, tests) for source, tests in MIRRORS.items() if module.startswith(source))
    folder, _, name = module.removeprefix(source).rpartition("/")
    return f"{tests}{folder}{'/' if folder else ''}test_{name.removeprefix('__').replace('__.py', '.py')}"


test_of.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("/__init__.py")])
def test_each_module_has_a_test_of_its_name_or_stands_in_a_list(module: str) -> None:
    own = test_of(module)
    listed = [pattern for pattern in (*ELSEWHERE, *UNTESTED) if fnmatchcase(module, pattern)]
    assert (own in FILES) or listed, f"write {own}, or add {module} to ELSEWHERE or UNTESTED in tests/test_layout.py"
    stale = module in listed and own in FILES
    assert not stale, f"{own} is there: remove {module} from the list in tests/test_layout.py"


def test_the_lists_name_what_is_there() -> None:
    assert [test for test in ELSEWHERE.values() if test not in FILES] == []
    listed = (*ELSEWHERE, *UNTESTED)
    assert [pattern for pattern in listed if not any(fnmatchcase(module, pattern) for module in MODULES)] == []


def test_no_module_is_long() -> None:
    modules = [name for name in FILES if name.endswith(".py") and name.startswith(("src/", "conformance/", "matrix/"))]
    lines = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in modules}
    assert {name for name, count in lines.items() if count > LONGEST} == set()


def test_a_clone_is_small() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in FILES}
    assert {name for name, size in sizes.items() if size > LARGEST} <= {"reports/records.parquet"}
    assert sum(sizes.values()) < ALL_TOGETHER
