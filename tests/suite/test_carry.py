from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvconform_conformance.runner.carry import take_over

HEADER: dict[str, Any] = {
    "kind": "cell",
    "cell": "torch2.5-tf4.53-py3.11-cpu",
    "torch": "2.5.1",
    "transformers": "4.53.3",
    "python": "3.11.7",
    "platform": "Linux-x86_64",
    "device": "cpu",
    "gpu": None,
    "packages": {"numpy": "2.3.1", "kvconform": "0.1"},
    "subjects": ["kvconform", "native"],
    "selection": {"keyword": None, "categories": []},
    "started": "2026-11-21T10:00:00Z",
}
NOW = {**HEADER, "started": "2026-11-25T10:00:00Z", "subjects": ["kvconform", "native", "new"]}
DIGESTS = {"kvconform": {"export": "a" * 16}, "native": {"export": "b" * 16}, "new": {"export": "c" * 16}}


def line(subject: str = "kvconform", status: str = "pass", **change: object) -> dict[str, Any]:
    digest = {"kvconform": "a", "native": "b"}.get(subject, "c") * 16
    about = {"subject": subject, "id": "export/one", "category": "export", "status": status, "seconds": 1.0}
    return {"kind": "check", **about, "message": "", "sources": digest, "asked": "", **change}


def write(path: Path, *lines: dict[str, Any], header: dict[str, Any] = HEADER, torn: str = "") -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in (header, *lines)) + torn, encoding="utf-8")
    return path


def taken(*paths: Path, header: dict[str, Any] = NOW) -> list[tuple[str, str]]:
    return [(subject, line["asked"]) for (subject, _), line in take_over(paths, header, DIGESTS).lines.items()]


def test_what_holds_is_taken_over_and_says_when_it_was_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a", line(), line("native", asked="2026-11-01T00:00:00Z"))
    assert taken(path) == [("kvconform", "2026-11-21T10:00:00Z"), ("native", "2026-11-01T00:00:00Z")]


@pytest.mark.parametrize("status", ["timeout", "crash", "missing"])
def test_what_the_machine_may_have_caused_is_asked_again(tmp_path: Path, status: str) -> None:
    assert taken(write(tmp_path / "a", line(status=status))) == []


@pytest.mark.parametrize("change", [{"sources": "f" * 16}, {"sources": ""}, {"sources": None}, {"category": "other"}])
def test_what_is_about_other_sources_is_asked_again(tmp_path: Path, change: dict[str, object]) -> None:
    assert taken(write(tmp_path / "a", line(**change))) == []


def test_a_record_of_the_first_schema_holds_nothing(tmp_path: Path) -> None:
    old = {key: value for key, value in line().items() if key not in ("sources", "asked")}
    assert taken(write(tmp_path / "a", old)) == []


@pytest.mark.parametrize("name", [name for name in HEADER if name not in ("kind", "subjects", "started", "packages")])
def test_another_environment_or_request_holds_nothing(tmp_path: Path, name: str) -> None:
    assert taken(write(tmp_path / "a", line(), header={**HEADER, name: "other"})) == []


def test_a_package_that_moved_makes_all_stale_and_this_project_does_not(tmp_path: Path) -> None:
    packages = {"numpy": "2.3.1", "kvconform": "0.2"}
    assert taken(write(tmp_path / "a", line(), header={**HEADER, "packages": packages}))
    for packages in ({"numpy": "2.3.2"}, {}, {"numpy": "2.3.1", "optree": "1"}):
        assert taken(write(tmp_path / "a", line(), header={**HEADER, "packages": packages})) == []


def test_the_first_record_wins_and_the_others_fill_up(tmp_path: Path) -> None:
    first = write(tmp_path / "a", line(), torn='{"kind": "check", "subj')
    second = write(tmp_path / "b", line(), line("native"), header={**HEADER, "started": "2026-11-01T00:00:00Z"})
    assert taken(first, second) == [("kvconform", "2026-11-21T10:00:00Z"), ("native", "2026-11-01T00:00:00Z")]


def test_a_subject_that_is_not_asked_is_not_taken_over(tmp_path: Path) -> None:
    assert taken(write(tmp_path / "a", line("native")), header={**NOW, "subjects": ["kvconform"]}) == []
