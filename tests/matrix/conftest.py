from __future__ import annotations

from pathlib import Path

import pytest

from matrix.cells import axes as axes_module
from matrix.cells.axes import Axes
from matrix.paths import Paths
from tests.matrix.helpers import at


@pytest.fixture(scope="session")
def axes() -> Axes:
    return axes_module.load()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A house of its own with an empty baseline."""
    return at(tmp_path / "home")
