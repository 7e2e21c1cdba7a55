"""The shell steps of each workflow, run in order; cells and what needs a network are played."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from matrix.records import parquet
from tests.workflows import actions
from tests.workflows.actions import FOLDER, ROOT, Machine, WorkflowError

STAND_IN = Path(__file__).with_name("stand_in.py")
CELL = "torch2.5-tf4.53-py3.11"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which every command that needs a network is played."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("python", "gh"):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" {name} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    more = {
        "STAND_IN": str(commands / "python"),
        "STORE": str(tmp_path / "releases"),
        "MODE": "pass",
        "SOURCES": str(ROOT / "src"),
        "SUITE": str(ROOT / "conformance"),
        "GITHUB_REPOSITORY": "someone/kvconform",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REF_NAME": "v9.9.9",
    }
    github = {"token": "secret", "repository": "someone/kvconform", "workflow": "nightly", "ref": "refs/heads/main"}
    return Machine(tmp_path / "run", actions.variables(commands, **more), github)


def told(machine: Machine) -> str:
    """What failed, for the message of an assertion."""
    return "\n".join(f"{each.job}: {each.step}\n{each.output}" for each in machine.ran if each.code)


def store(machine: Machine) -> Path:
    return Path(machine.variables["STORE"]) / "records" / "records.parquet"


def of_fake_cells(workspace: Path) -> None:
    """Nothing is known to fail, and nothing is published: the answers of a fake cell are its own."""
    (workspace / "matrix" / "data" / "baseline.toml").write_text("", encoding="utf-8")
    for name in ("records.parquet", "publications.json", "optin.parquet"):
        (workspace / "reports" / name).unlink(missing_ok=True)


def test_a_night_that_regressed_is_red_and_published_and_the_next_one_keeps_it(machine: Machine) -> None:
    good = dict(machine.variables)
    first = Machine(machine.folder, {**good, "MODE": "regress"}, machine.github, of_fake_cells)
    assert not actions.run("nightly-gpu.yml", first)
    assert {each.job for each in first.ran if each.code} == {"cells", "aggregate"}, told(first)
    assert "export/three" in first.steps("--records new-records --out new-report")[-1].output
    assert (first.pages / "index.html").stat().st_size
    assert {run.cell for run in parquet.read(store(first))} == {f"{CELL}-cuda"}
    second = Machine(machine.folder.with_name("second"), good, machine.github, of_fake_cells)
    assert actions.run("nightly-cpu.yml", second), told(second)
    assert [path.name for path in second.artifacts.glob("*/*.jsonl")] == [f"{CELL}-cpu.jsonl"]
    assert {run.cell for run in parquet.read(store(second))} == {f"{CELL}-cpu", f"{CELL}-cuda"}
    assert "\n2 cells, " in second.steps("matrix report --summary")[0].output
    since = json.loads((second.pages / "data" / "publications.json").read_text(encoding="utf-8"))["publications"]
    assert [each["cells"] for each in since] == [[f"{CELL}-cpu"], [f"{CELL}-cuda"]]


def test_a_pull_request_runs_sessions_that_there_are(machine: Machine) -> None:
    machine.changes = of_fake_cells
    assert actions.run("pull-request.yml", machine), told(machine)
    assert [
        f"* {name} " in each.output for name, each in zip(("lint", "tests"), machine.steps("nox"), strict=True)
    ] == [
        True,
        True,
    ]


def test_a_release_is_tried_before_it_is_published(machine: Machine) -> None:
    assert actions.run("release.yml", machine), told(machine)
    order = [each.step for each in machine.ran]
    tried = [at for at, step in enumerate(order) if "env/bin/python -m kvconform" in step]
    assert len(tried) == 2
    assert max(tried) < next(at for at, step in enumerate(order) if "pypi-publish" in step)
    machine = Machine(
        machine.folder.with_name("other"), {**machine.variables, "GITHUB_REF_NAME": "v1.0"}, machine.github
    )
    assert not actions.run("release.yml", machine)
    assert not machine.steps("pypi-publish")


def test_no_step_writes_into_the_history() -> None:
    for path in FOLDER.glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        assert "git push" not in text
        assert "git commit" not in text
        assert text.count("actions/checkout@") == text.count("persist-credentials: false")


WRONG = """
jobs:
  one:
    steps:
      - {step}
"""


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ('run: echo "${{ matrix.torhc }}"', "matrix.torhc is not there"),
        ("uses: someone/something@9c091bb21b7c1c1d1991bb908d89e4e9dddfe3e0", "is not played here"),
        ("uses: actions/checkout@v7", "which can move"),
        ('run: echo "A=1" >> "$GITHUB_ENV"', "are not played"),
    ],
)
def test_what_github_would_take_wrongly_is_an_error(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, message: str
) -> None:
    (tmp_path / "wrong.yml").write_text(WRONG.replace("{step}", step), encoding="utf-8")
    monkeypatch.setattr(actions, "FOLDER", tmp_path)
    with pytest.raises(WorkflowError, match=message):
        actions.run("wrong.yml", machine)


def test_a_step_that_fails_ends_its_job_and_what_is_always_run_runs(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
    jobs:
      one:
        steps:
          - run: false | true
          - run: echo never
          - run: echo always
            if: ${{ always() }}
          - run: echo after a failure
            if: ${{ failure() }}
      two:
        needs: one
        steps:
          - run: echo never
      three:
        needs: one
        if: ${{ !cancelled() }}
        steps:
          - run: echo three
    """
    (tmp_path / "wrong.yml").write_text(textwrap.dedent(text), encoding="utf-8")
    monkeypatch.setattr(actions, "FOLDER", tmp_path)
    assert not actions.run("wrong.yml", machine)
    assert [each.output for each in machine.ran] == ["", "always\n", "after a failure\n", "three\n"]


@pytest.mark.network
def test_a_real_release_is_built_installed_and_asked(tmp_path: Path) -> None:
    version = subprocess.run(
        [sys.executable, "-c", "from kvconform._version import __version__; print(__version__)"],
        cwd=ROOT / "src",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    host = tmp_path / "host"
    subprocess.run([sys.executable, "-m", "venv", str(host)], check=True)
    machine = Machine(tmp_path / "run", actions.variables(host / "bin", GITHUB_REF_NAME=f"v{version}"))
    assert actions.run("release.yml", machine), told(machine)
    assert "kvconform" in machine.steps("kvconform doctor")[0].output


@pytest.mark.network
def test_a_real_cell_goes_through_a_night(machine: Machine, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    shutil.copy2(machine.variables["STAND_IN"].replace("python", "gh"), real / "gh")
    # The tier of one cell, and a category of it: the environment, the suite, the record and the table are real.
    script = f"""#!/bin/sh
    case "$*" in
      *--tier*) exec "{sys.executable}" "{STAND_IN}" real-python "$@" ;;
      "-m pip install"*) exit 0 ;;
      *) exec "{sys.executable}" "$@" ;;
    esac
    """
    (real / "python").write_text(textwrap.dedent(script), encoding="utf-8")
    (real / "python").chmod(0o755)
    variables = {**machine.variables, "PATH": f"{real}:{machine.variables['PATH']}"}
    machine = Machine(machine.folder, variables, machine.github)
    assert actions.run("nightly-cpu.yml", machine), told(machine)
    (cell,) = [run for run in parquet.read(store(machine)) if run.cell == f"{CELL}-cpu"]
    assert cell.environment.packages
