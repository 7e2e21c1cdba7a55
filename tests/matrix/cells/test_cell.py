from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.cells.cell import Cell, is_axis_value, minor_of, version_key
from matrix.errors import ExitCode, UserError

versions = st.builds(lambda major, minor: f"{major}.{minor}", st.integers(0, 9), st.integers(0, 99))
cells = st.builds(
    Cell,
    st.one_of(versions, st.just("nightly"), st.just("2.5.0")),
    st.one_of(versions, st.just("main")),
    st.sampled_from(["3.10", "3.11", "3.14"]),
    st.sampled_from(["cpu", "cuda"]),
    st.sampled_from(["", "optree"]),
)


@given(cells)
def test_an_id_reads_back_as_its_cell(cell: Cell) -> None:
    assert Cell.parse(cell.id) == cell
    assert Cell.from_json(cell.to_json()) == cell


def test_the_id_is_the_one_that_records_carry() -> None:
    assert Cell("2.5", "4.53").id == "torch2.5-tf4.53-py3.11-cpu"
    assert Cell("2.5", "4.53").venv == "torch2.5-tf4.53-py3.11"
    assert Cell("2.5", "4.53").session == "conformance(torch='2.5', transformers='4.53')"


def test_what_is_beside_is_part_of_the_id_and_of_the_command() -> None:
    cell = Cell("2.15", "5.23", "3.12", "cuda", "optree")
    assert cell.id == "torch2.15-tf5.23-py3.12+optree-cuda"
    session = "python -m nox -s \"conformance(torch='2.15', transformers='5.23')\""
    assert cell.command == f"{session} -- --python=3.12 --extra=optree --device=cuda"
    assert Cell("2.15", "5.23").command == session
    with pytest.raises(UserError, match="no name"):
        Cell("2.15", "5.23", extra="two words")


def test_the_environment_folder_is_short_enough_for_nox() -> None:
    assert len(Cell("nightly", "4.53.3", "3.14.1", "cuda").venv) < 60


@pytest.mark.parametrize(
    "text", ["", "torch2.5", "torch2.5-tf4.53-py3.11", "torch2.5-tf4.53-py3.11-tpu", "tf4.53-torch2.5"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        Cell.parse(text)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("value", ["2", "2.5.1.1", "abc", "2.5rc1", "main", ""])
def test_what_is_no_torch_version_is_refused(value: str) -> None:
    assert not is_axis_value("torch", value)
    with pytest.raises(UserError, match="no torch version"):
        Cell(value, "4.53")


def test_versions_order_as_numbers_and_moving_ones_come_last() -> None:
    assert sorted(["2.10", "nightly", "2.9", "2.9.1"], key=version_key) == ["2.9", "2.9.1", "2.10", "nightly"]


def test_a_minor_and_its_first_patch_are_always_in_the_same_order():
    """4.56 and 4.56.0 are equal as versions: a set of both came out in another order from one process to the next."""
    for values in itertools.permutations(["4.56.0", "4.56", "4.56.1", "4.55"]):
        assert sorted(values, key=version_key) == ["4.55", "4.56.0", "4.56", "4.56.1"]


def test_a_full_version_belongs_to_its_minor() -> None:
    assert [minor_of(value) for value in ("2.5", "2.5.1", "main")] == ["2.5", "2.5", "main"]
