"""Runs from folders, files and git revisions."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from matrix.errors import ExitCode, UserError
from matrix.records import parquet, sources
from tests.matrix import factories


def test_the_latest_run_of_a_cell_wins(tmp_path: Path) -> None:
    old = factories.run(factories.record(), started="2026-11-20T10:00:00Z")
    new = factories.run(factories.record(status="fail"), started="2026-11-21T10:00:00Z")
    factories.write(tmp_path / "b", old)
    factories.write(tmp_path / "a", new)
    assert sources.read_latest(tmp_path) == [new]


def test_lines_and_parquet_side_by_side(tmp_path: Path) -> None:
    first, second, *rest = factories.smoke_runs()
    factories.write(tmp_path / "lines", first)
    parquet.write(tmp_path / "deeper" / "a.parquet", [second])
    assert {run.cell for run in sources.read_latest(tmp_path)} == {first.cell, second.cell}
    parquet.write(tmp_path / "rest.parquet", rest)
    runs = sources.read_every(tmp_path / "lines", tmp_path / "rest.parquet")
    assert len(runs) == 1 + len(rest)


def test_no_record_is_an_error(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none.parquet"):
        with pytest.raises(UserError, match="holds no record") as caught:
            sources.read_every(source)
        assert caught.value.exit_code == ExitCode.EMPTY


@pytest.mark.parametrize("filters", [True, False])
def test_git_revisions_of_either_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, filters: bool) -> None:
    if not filters:
        # As on Python up to 3.11.3, which Debian 12 has.
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    run = factories.run(factories.record())

    def commit() -> None:
        subprocess.run([*git, "add", "--all", "."], check=True)
        subprocess.run([*git, "commit", "-qm", "records"], check=True)

    subprocess.run([*git, "init", "-q"], check=True)
    factories.write(tmp_path / "reports" / "records", run)
    commit()
    (tmp_path / "reports" / "records" / f"{run.cell}.jsonl").unlink()
    parquet.write(tmp_path / sources.PUBLISHED, [run])
    commit()
    for source in ("HEAD", "HEAD~1", "HEAD:reports/records.parquet", "HEAD~1:reports/records", sources.PUBLISHED):
        assert sources.read_latest(source) == [run], source
    for wrong in ("nowhere", "HEAD:elsewhere", "--output=x"):
        with pytest.raises(UserError, match="no folder, no file and no git revision") as caught:
            sources.read_latest(wrong)
        assert caught.value.exit_code == ExitCode.USAGE
