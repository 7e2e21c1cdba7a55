from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from matrix.cells.axes import Axes
from matrix.cells.cell import Cell
from matrix.collect import resolve, uv
from matrix.collect.resolve import Question
from matrix.errors import MakingError, UnresolvedError
from matrix.paths import Paths
from tests.matrix.helpers import CELL

ASKED = Question(("torch==2.5.*", "transformers==4.53.*"), (), "3.11", CELL.venv)
PINS = "torch==2.5.1\ntransformers==4.53.3\nPyYAML==6.0.2 ; python_version > '3'\n"


class Index:
    """In place of uv: counts how often it was asked, answers with three pins or raises."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    def run(self, arguments: list[str], *, cwd: Path, text: str | None = None) -> str:
        self.asked += 1
        if self.error:
            raise self.error
        return PINS


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    made = Index()
    monkeypatch.setattr(uv, "run", made.run)
    return made


def answer(paths: Paths, *, fresh: bool = False, asked: Question = ASKED) -> Path:
    return resolve.answer(asked, paths, interpreter="python3.11", fresh=fresh)


def age(paths: Paths) -> None:
    for path in paths.resolved.glob("*.txt"):
        os.utime(path, (time.time() - 2 * resolve.FRESH_FOR,) * 2)


def test_a_minor_is_its_newest_patch_and_a_full_version_itself(axes: Axes, paths: Paths) -> None:
    asked = resolve.question(CELL, axes, paths, None)
    assert asked.requirements[:2] == ("torch==2.5.*", "transformers==4.53.*")
    assert any(line.startswith("pytest-xdist") for line in asked.requirements)
    assert resolve.question(Cell("2.5.0", "4.53.1"), axes, paths, None).requirements[:2] == (
        "torch==2.5.0",
        "transformers==4.53.1",
    )


def test_what_is_beside_is_one_more_requirement(axes: Axes, paths: Paths) -> None:
    plain, more = (resolve.question(Cell("2.5", "4.53", extra=extra), axes, paths, None) for extra in ("", "optree"))
    assert set(more.requirements) - set(plain.requirements) == {"optree"}
    assert plain.key != more.key


def test_what_follows_upstream_is_asked_where_it_is(axes: Axes, paths: Paths) -> None:
    asked = resolve.question(Cell("nightly", "main"), axes, paths, "cu130")
    assert asked.requirements[0] == f"torch>{axes.known('torch')[-1]}.99.dev0"
    assert asked.requirements[1].startswith("transformers @ git+https://github.com/huggingface/transformers")
    assert "https://download.pytorch.org/whl/nightly/cu130" in asked.options


def test_the_backend_is_uvs(axes: Axes, paths: Paths) -> None:
    assert resolve.question(CELL, axes, paths, "cpu").options == ("--torch-backend", "cpu")
    assert resolve.question(CELL, axes, paths, None).options == ()
    keys = {resolve.question(CELL, axes, paths, backend).key for backend in (None, "cpu", "cu128")}
    assert len(keys) == 3


def test_an_answer_is_remembered(paths: Paths, index: Index) -> None:
    assert resolve.resolved(answer(paths)) == {"torch": "2.5.1", "transformers": "4.53.3", "pyyaml": "6.0.2"}
    assert answer(paths).read_text(encoding="utf-8") == PINS
    assert index.asked == 1


def test_the_index_is_asked_again_when_the_answer_is_old_or_fresh_is_asked(paths: Paths, index: Index) -> None:
    answer(paths)
    answer(paths, fresh=True)
    age(paths)
    answer(paths)
    assert index.asked == 3


def test_what_moves_is_asked_every_time(paths: Paths, index: Index) -> None:
    main = Question(("transformers @ git+https://example.org/t@main",), (), "3.11", "main")
    answer(paths, asked=main)
    answer(paths, asked=main)
    assert index.asked == 2


def test_without_a_network_an_old_answer_stands(paths: Paths, index: Index) -> None:
    answer(paths)
    age(paths)
    index.error = MakingError("away")
    assert answer(paths).read_text(encoding="utf-8") == PINS
    with pytest.raises(MakingError):
        answer(paths, fresh=True)


def test_a_pair_that_no_longer_fits_is_an_error_although_an_old_answer_is_there(paths: Paths, index: Index) -> None:
    answer(paths)
    age(paths)
    index.error = UnresolvedError("no pair")
    with pytest.raises(UnresolvedError, match="no pair"):
        answer(paths)


def test_a_line_is_printed_before_the_index_is_asked_and_none_otherwise(
    paths: Paths, index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(paths)
    assert capsys.readouterr().err.startswith(f"{CELL.venv}: asking the package index")
    answer(paths)
    assert not capsys.readouterr().err
