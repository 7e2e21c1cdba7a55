"""Runs the jobs of a workflow here, one after the other: its shell steps in bash, with the variables that GitHub sets.

Of the actions, those that move files are played (`checkout`, artifacts, Pages); any other that is not in `PLAYED` is an
error, and so is an expression that names something that is not there: GitHub would put nothing in its place.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_PATH = re.compile(r"'[^']*'|[A-Za-z_][\w.-]*+(?!\()")


class WorkflowError(Exception):
    """The workflow is wrong, or asks for something that is not played here."""


@dataclass
class Ran:
    """A step that ran."""

    job: str
    step: str
    code: int
    output: str


@dataclass
class Machine:
    """What the jobs of a run share, and what they leave.

    Attributes:
        folder: where everything goes.
        variables: of every step: a path with stand-ins for commands, and so on.
        github: the context of that name.
        changes: is given each checkout, to change what the jobs find there.
    """

    folder: Path
    variables: Mapping[str, str]
    github: dict[str, Any] = field(default_factory=dict)
    changes: Callable[[Path], None] = lambda workspace: None
    ran: list[Ran] = field(default_factory=list)

    @property
    def artifacts(self) -> Path:
        """A folder an artifact."""
        return self.folder / "artifacts"

    @property
    def pages(self) -> Path:
        """What was given to Pages."""
        return self.folder / "pages"

    def steps(self, text: str) -> list[Ran]:
        """The steps that ran and have a text in their name or script."""
        return [each for each in self.ran if text in each.step]


def run(name: str, machine: Machine, inputs: Mapping[str, Any] | None = None) -> bool:
    """Run a workflow; returns whether every job succeeded."""
    workflow = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    needed: dict[str, dict[str, Any]] = {}
    for job_id in _ordered(workflow["jobs"]):
        job = workflow["jobs"][job_id]
        before = [needed[each] for each in _needs(job)]
        failed = any(each["result"] != "success" for each in before)
        context = {"inputs": dict(inputs or {}), "needs": needed, "github": machine.github}
        if not _holds(job.get("if", "success()"), context, failed=failed):
            needed[job_id] = {"result": "skipped", "outputs": {}}
        elif "uses" in job:
            called = re.sub(r"^(\$|\.)/\.github/workflows/", "", job["uses"])
            given = {key: _fill(value, context) for key, value in job.get("with", {}).items()}
            good = run(called, machine, {**_defaults(called), **given})
            needed[job_id] = {"result": "success" if good else "failure", "outputs": {}}
        else:
            needed[job_id] = _job(job_id, job, context, machine)
    return all(each["result"] == "success" for each in needed.values())


def _job(job_id: str, job: dict[str, Any], context: dict[str, Any], machine: Machine) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    good = True
    for at, values in enumerate(_matrix(job, context)):
        place = machine.folder / f"{job_id}-{len(machine.ran)}-{at}"
        with_matrix = {**context, "matrix": values, "steps": {}}
        for key in ("name", "runs-on"):
            _fill(job.get(key), with_matrix)
        good = _steps(job_id, job, with_matrix, machine, place) and good
        outputs |= {key: _fill(value, with_matrix) for key, value in job.get("outputs", {}).items()}
    return {"result": "success" if good else "failure", "outputs": outputs}


def _steps(job_id: str, job: dict[str, Any], context: dict[str, Any], machine: Machine, place: Path) -> bool:
    workspace, temporary = place / "workspace", place / "temp"
    workspace.mkdir(parents=True)
    temporary.mkdir()
    common = {**machine.variables, "GITHUB_WORKSPACE": str(workspace), "RUNNER_TEMP": str(temporary)}
    common |= {key: str(_fill(value, context)) for key, value in job.get("env", {}).items()}
    failed = False
    for step in job["steps"]:
        if not _holds(step.get("if", "success()"), context, failed=failed):
            continue
        if "uses" in step:
            _play(step, context, machine, workspace)
            continue
        own = {key: str(_fill(value, context)) for key, value in step.get("env", {}).items()}
        code, output, told = _shell(_fill(step["run"], context), {**common, **own}, workspace, temporary)
        machine.ran.append(Ran(job_id, f"{step.get('name', '')}\n{step['run']}", code, output))
        if "id" in step:
            context["steps"][step["id"]] = {"outputs": told}
        failed = failed or (code != 0 and not step.get("continue-on-error"))
    return not failed


def _shell(script: str, variables: dict[str, str], workspace: Path, temporary: Path) -> tuple[int, str, dict[str, str]]:
    files = {name: temporary / name for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")}
    for path in files.values():
        path.touch()
    text = temporary / "script.sh"
    text.write_text(script, encoding="utf-8")
    before = len(files["GITHUB_OUTPUT"].read_text(encoding="utf-8"))
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(text)],
        cwd=workspace,
        env={**variables, "CI": "true", "GITHUB_ACTIONS": "true", **{name: str(path) for name, path in files.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if files["GITHUB_ENV"].stat().st_size or files["GITHUB_PATH"].stat().st_size:
        raise WorkflowError("GITHUB_ENV and GITHUB_PATH are not played: no step used them")
    lines = files["GITHUB_OUTPUT"].read_text(encoding="utf-8")[before:].splitlines()
    return done.returncode, done.stdout, dict(line.split("=", 1) for line in lines)


def _checkout(given: dict[str, Any], machine: Machine, workspace: Path) -> None:
    """The files of this checkout, also those that are not committed yet."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (workspace / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, workspace / name)
    machine.changes(workspace)


def _upload(given: dict[str, Any], machine: Machine, workspace: Path) -> None:
    target = machine.artifacts / given["name"]
    if target.exists():
        raise WorkflowError(f"a second artifact is called {given['name']}")
    paths = [workspace / line for line in given["path"].split()]
    there = [path for path in paths if path.exists()]
    if not there:
        if given.get("if-no-files-found") == "error":
            raise WorkflowError(f"nothing to upload as {given['name']}")
        return
    for path in there:
        # As the action does: what several paths have in common is left out.
        inside = target / path.name if len(paths) > 1 else target
        shutil.copytree(path, inside) if path.is_dir() else shutil.copy2(path, inside)


def _download(given: dict[str, Any], machine: Machine, workspace: Path) -> None:
    pattern = given.get("pattern") or given["name"]
    for folder in sorted(machine.artifacts.glob("*")):
        if fnmatchcase(folder.name, pattern):
            merged = "name" in given or given.get("merge-multiple")
            shutil.copytree(folder, workspace / given["path"] / ("" if merged else folder.name), dirs_exist_ok=True)


def _pages(given: dict[str, Any], machine: Machine, workspace: Path) -> None:
    shutil.copytree(workspace / given["path"], machine.pages, dirs_exist_ok=True)


def _nothing(given: dict[str, Any], machine: Machine, workspace: Path) -> None:
    pass


PLAYED: dict[str, Callable[[dict[str, Any], Machine, Path], None]] = {
    "actions/checkout": _checkout,
    "actions/setup-python": _nothing,
    "actions/upload-artifact": _upload,
    "actions/download-artifact": _download,
    "actions/configure-pages": _nothing,
    "actions/upload-pages-artifact": _pages,
    "actions/deploy-pages": _nothing,
    "pypa/gh-action-pypi-publish": _nothing,
}


def _play(step: dict[str, Any], context: dict[str, Any], machine: Machine, workspace: Path) -> None:
    name, _, commit = step["uses"].partition("@")
    if name not in PLAYED:
        raise WorkflowError(f"{name} is not played here: add it to PLAYED")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise WorkflowError(f"{name} is pinned to {commit}, which can move")
    PLAYED[name]({key: _fill(value, context) for key, value in step.get("with", {}).items()}, machine, workspace)
    machine.ran.append(Ran("", step["uses"], 0, ""))


def _ordered(jobs: dict[str, Any]) -> Iterator[str]:
    done: set[str] = set()
    while len(done) < len(jobs):
        ready = [name for name in jobs if name not in done and done >= set(_needs(jobs[name]))]
        if not ready:
            raise WorkflowError("jobs need each other")
        yield ready[0]
        done.add(ready[0])


def _needs(job: dict[str, Any]) -> list[str]:
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else list(needs)


def _defaults(name: str) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as a boolean.
    workflow = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    inputs = (workflow[True]["workflow_call"] or {}).get("inputs", {})
    return {key: value["default"] for key, value in inputs.items() if "default" in value}


def _matrix(job: dict[str, Any], context: dict[str, Any]) -> list[dict[str, Any]]:
    if "strategy" not in job:
        return [{}]
    given = _fill(job["strategy"]["matrix"], context)
    if "include" in given:
        return list(given["include"])
    return [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]


def _holds(condition: str, context: dict[str, Any], *, failed: bool) -> bool:
    inside = _EXPRESSION.fullmatch(str(condition).strip())
    return bool(_evaluate(inside[1] if inside else str(condition), context, failed=failed))


def _fill(value: Any, context: dict[str, Any]) -> Any:
    """A value with its expressions evaluated; one that is a single expression keeps its type."""
    if not isinstance(value, str):
        return value
    whole = _EXPRESSION.fullmatch(value)
    if whole:
        return _evaluate(whole[1], context)
    return _EXPRESSION.sub(lambda found: str(_evaluate(found[1], context)), value)


def _evaluate(text: str, context: dict[str, Any], *, failed: bool = False) -> Any:
    """The value of an expression of GitHub: paths, texts, `&&`, `||`, `!`, `==`, and some functions."""
    python = _PATH.sub(lambda found: found[0] if found[0].startswith("'") else f"get({found[0]!r})", text)
    python = re.sub(r"!(?!=)", " not ", python.replace("&&", " and ").replace("||", " or ")).strip()
    functions: dict[str, Any] = {
        "get": lambda path: _look_up(path, context),
        "fromJSON": json.loads,
        "success": lambda: not failed,
        "failure": lambda: failed,
        "always": lambda: True,
        "cancelled": lambda: False,
    }
    try:
        # Of this repository's own files.
        return eval(python, {"__builtins__": {}}, functions)
    except (NameError, SyntaxError, TypeError, ValueError) as error:
        raise WorkflowError(f"{text}: {error}") from error


def _look_up(path: str, context: dict[str, Any]) -> Any:
    if path == "steps.deployment.outputs.page_url":
        return "https://example.invalid"
    found: Any = context
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise WorkflowError(f"{path} is not there")
        found = found[part]
    return found


def variables(stand_ins: Path, **more: str) -> dict[str, str]:
    """The variables of every step: those of this process that say where things are, and stand-ins first on the path."""
    names = {"HOME", "PATH", "TMPDIR", "LANG", "http_proxy", "https_proxy", "no_proxy"}
    where = ("UV_", "PIP_", "SSL_", "REQUESTS_")  # how this machine reaches its package index
    kept = {name: value for name, value in os.environ.items() if name in names or name.startswith(where)}
    return {**kept, "PATH": f"{stand_ins}{os.pathsep}{kept['PATH']}", **more}
