from __future__ import annotations

import os
from pathlib import Path

import pytest

from matrix.collect import disk, uv
from matrix.collect.disk import Keeper, parse_budget
from matrix.errors import UserError
from matrix.paths import Paths

MB = 10**6


@pytest.fixture
def cache(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = paths.home / "uv"
    folder.mkdir()
    monkeypatch.setattr(disk, "uv_cache", lambda _: folder)
    return folder


@pytest.fixture
def cleaned(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []
    monkeypatch.setattr(uv, "run", lambda arguments, **_: calls.append(list(arguments)) or "")
    return calls


def environment(paths: Paths, torch: str, cache: Path) -> Path:
    """An environment with a wheel of one megabyte that the cache holds too."""
    wheel = cache / f"torch-{torch}"
    wheel.write_bytes(b"x" * MB)
    folder = paths.venvs / f"torch{torch}-tf4.53-py3.11"
    folder.mkdir(parents=True)
    os.link(wheel, folder / "libtorch.so")
    return folder


def test_links_count_once(paths: Paths, cache: Path) -> None:
    environment(paths, "2.5", cache)
    environment(paths, "2.6", cache)
    assert Keeper(paths, 1).used() == pytest.approx(2 * MB, rel=0.01)


def test_nothing_goes_while_there_is_room(
    paths: Paths, cache: Path, cleaned: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = environment(paths, "2.5", cache)
    monkeypatch.setattr(disk, "MINOR_COST", MB)
    assert Keeper(paths, 10 * MB).make_room(set()) == ""
    assert folder.exists()
    assert cleaned == []


def test_what_nobody_waits_for_goes(
    paths: Paths, cache: Path, cleaned: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MINOR_COST", MB)
    gone, kept = (environment(paths, torch, cache) for torch in ("2.5", "2.6"))
    paths.resolved.mkdir(parents=True)
    pins = "certifi==1\nnvidia-cublas-cu12==12\ntorch==2.5.1\ntorchless==1\ntransformers==4.53.3\ntriton==3.1.0\n"
    (paths.resolved / "a.txt").write_text(pins, encoding="utf-8")
    Keeper(paths, 2 * MB).make_room({"2.6"})
    assert not gone.exists()
    assert kept.exists()
    assert cleaned == [["cache", "clean", "--quiet", "nvidia-cublas-cu12", "torch", "triton"]]


def test_room_is_made_once_a_torch_and_not_of_what_runs(
    paths: Paths, cache: Path, cleaned: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MINOR_COST", MB)
    gone, running = (environment(paths, torch, cache) for torch in ("2.5", "2.6"))
    assert Keeper(paths, 1).room_for("2.5") == ""
    assert gone.exists()
    Keeper(paths, 1).room_for("2.7", {"2.6"})
    assert (gone.exists(), running.exists()) == (False, True)


def test_other_folders_of_nox_are_left_alone(
    paths: Paths, cache: Path, cleaned: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (paths.venvs / "tests").mkdir(parents=True)
    Keeper(paths, 1).make_room(set())
    assert (paths.venvs / "tests").exists()


@pytest.mark.parametrize(("text", "size"), [("25", 25 * 10**9), ("2.5", 25 * 10**8)])
def test_budgets_are_gigabytes(text: str, size: int) -> None:
    assert parse_budget(text) == size


@pytest.mark.parametrize("text", ["0", "-1", "lots", ""])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(UserError, match="--disk-budget"):
        parse_budget(text)
