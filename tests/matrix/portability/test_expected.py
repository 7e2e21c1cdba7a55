from __future__ import annotations

from pathlib import Path

import pytest

from matrix.cells.cell import Cell
from matrix.errors import UserError
from matrix.portability.expected import Known, load_known
from matrix.portability.verdicts import WRONG

OLD, NEW = Cell("2.5", "4.53"), Cell("2.10", "5.23")


def row(**more: str) -> Known:
    specifiers = {name: more.pop(name) for name in list(more) if name.startswith(("saved_", "loaded_"))}
    asked = {"program": "sliding-*", "question": "program", "status": "fail", "reason": "Why.", "fault": "torch"}
    return Known(**(asked | more), specifiers=specifiers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "covers"),
    [
        (row(), True),
        (row(program="{dynamic,sliding}-*"), True),
        (row(program="sliding"), False),
        (row(question="{program,context}"), True),
        (row(question="context"), False),
        (row(saved_torch=">=2.9"), True),  # 2.10 is above 2.9, as a version
        (row(saved_torch="<2.9"), False),
        (row(loaded_torch="<2.6", loaded_transformers="<4.54"), True),
        (row(loaded_torch="<2.6", loaded_transformers=">=4.54"), False),
    ],
)
def test_a_row_covers_its_programs_questions_and_pairs(known: Known, *, covers: bool) -> None:
    assert known.covers("sliding-16-past", "program", NEW, OLD) == covers


def test_a_full_version_is_covered_as_its_minor() -> None:
    assert row(saved_torch=">=2.5,<2.6").covers("sliding-16-past", "program", Cell("2.5.1", "4.53"), NEW)


def test_the_expected_failures_of_this_checkout_can_be_read() -> None:
    rows = load_known()
    assert rows
    for each in rows:
        assert each.status in WRONG
        assert each.fault in {"torch", "transformers", "kvconform"}
        assert each.reason.endswith(".")


@pytest.mark.parametrize("text", ["[[expected", '[[expected]]\nprogram = "a"\n'])
def test_a_malformed_file_is_one_error_with_a_next_command(tmp_path: Path, text: str) -> None:
    path = tmp_path / "portability.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"portability\.toml cannot be read") as caught:
        load_known(path)
    assert caught.value.next_command == "git diff -- matrix/data/portability.toml"
