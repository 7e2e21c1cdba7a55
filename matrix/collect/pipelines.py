"""The jobs of a plan as continuous integration reads them: a matrix of GitHub, a pipeline of Buildkite."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from matrix.collect.jobs import Job
from matrix.errors import EmptySelectionError, UserError

JOBS_LIMIT = 256
"""GitHub refuses a matrix with more jobs."""
MINUTES_LIMIT = 350
RECORDS = "new-records"


def github(jobs: Sequence[Job]) -> str:
    """The matrix of a workflow; each job has its `name`, `slug`, `cells`, expected `minutes`, and `select`.

    Raises:
        EmptySelectionError: it would be empty, which Actions takes for a success.
        UserError: it has more jobs than GitHub takes.
    """
    _expect_some(jobs)
    if len(jobs) > JOBS_LIMIT:
        raise UserError(
            f"{len(jobs)} jobs are more than GitHub takes ({JOBS_LIMIT})", "python -m matrix plan --jobs 20"
        )
    include = [
        {"name": job.name, "slug": f"job{at}", "cells": len(job.cells), "minutes": _minutes(job), "select": job.select}
        for at, job in enumerate(jobs, 1)
    ]
    return json.dumps({"include": include})


def buildkite(jobs: Sequence[Job], asked: Mapping[str, str]) -> str:
    """The pipeline for `buildkite-agent pipeline upload`: a step a job, then one that judges all records.

    Args:
        jobs: the jobs.
        asked: the options of the selection, by name. Cells of CUDA ask for agents whose queue is `gpu`.

    Raises:
        EmptySelectionError: no cell can run.
    """
    _expect_some(jobs)
    steps = [_step(job, at, asked) for at, job in enumerate(jobs, 1)]
    judge: dict[str, Any] = {
        "label": "the table",
        "key": "table",
        "commands": [
            "python -m pip install -r requirements.txt",
            f"buildkite-agent artifact download '{RECORDS}/*' .",
            f"python -m matrix report --records {RECORDS} --out new-report",
        ],
        "artifact_paths": ["new-report/**/*"],
        "timeout_in_minutes": 15,
    }
    # A job that regressed is told by the table too.
    return json.dumps({"steps": [*steps, {"wait": None, "continue_on_failure": True}, judge]}, indent=1)


def _step(job: Job, at: int, asked: Mapping[str, str]) -> dict[str, Any]:
    command = ["python", "-m", "matrix", "run", *(f"--{name}={value}" for name, value in asked.items())]
    command += ["--select", job.select, "--rerun", "--records", RECORDS, "--jobs", "2"]
    step: dict[str, Any] = {
        "label": f"{job.name} ({len(job.cells)} cells, about {_minutes(job)} min)",
        "key": f"cells-{at}",
        "commands": ["python -m pip install -r requirements.txt", shlex.join(command)],
        "artifact_paths": [f"{RECORDS}/*.jsonl", ".cache/logs/*.log"],
        "timeout_in_minutes": MINUTES_LIMIT,
    }
    return {**step, "agents": {"queue": "gpu"}} if asked.get("device") == "cuda" else step


def _expect_some(jobs: Sequence[Job]) -> None:
    if not jobs:
        raise EmptySelectionError("no cell of the selection can run", "python -m matrix plan")


def _minutes(job: Job) -> int:
    return max(1, round(job.seconds / 60))
