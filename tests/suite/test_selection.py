from __future__ import annotations

from pathlib import Path

import pytest

from kvconform_conformance.runner import selection
from kvconform_conformance.runner.listing import Check

CHECKS = [Check(name, "") for name in ("export/cache-in", "export/cache-out", "round-trip/whole")]


@pytest.mark.parametrize(
    ("categories", "keyword", "said"),
    [
        (["exports"], None, "no category exports; there are: export, round-trip"),
        (["export", "a", "b"], "x", "no category a, b; there are: export, round-trip"),
        ([], "round-trip/hole", "-k 'round-trip/hole' selects none of 3 checks; near: round-trip/whole;"),
        ([], "zzz", "-k 'zzz' selects none of 3 checks; list them: python -m kvconform check --list"),
    ],
)
def test_an_empty_selection_names_what_comes_near(monkeypatch, categories, keyword, said):
    monkeypatch.setattr(selection, "list_checks", lambda _: CHECKS)
    assert selection.explain_empty(Path(), categories, keyword).startswith(said)
