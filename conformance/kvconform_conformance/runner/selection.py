"""Says why a selection is empty: a suite that silently ran nothing is the worst result."""

from __future__ import annotations

import difflib
from pathlib import Path

from kvconform_conformance.runner.listing import list_checks


def explain_empty(suite: Path, categories: list[str], keyword: str | None) -> str:
    """Name what was asked for, and what comes near."""
    checks = list_checks(suite)
    known = sorted({check.category for check in checks})
    wrong = [category for category in categories if category not in known]
    if wrong:
        return f"no category {', '.join(wrong)}; there are: {', '.join(known)}"
    near = difflib.get_close_matches(keyword or "", [check.id for check in checks], n=3, cutoff=0.4)
    hint = f"; near: {', '.join(near)}" if near else ""
    return f"-k {keyword!r} selects none of {len(checks)} checks{hint}; list them: python -m kvconform check --list"
