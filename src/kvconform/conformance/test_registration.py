"""Registration: what is in torch's pytree tables at import, inside a subject's context, and after it."""

from __future__ import annotations

from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot
from kvconform.conformance.subjects import Subject


def test_undone(subject: Subject) -> None:
    """Leaving the context puts every pytree table back to what it was."""
    before = registry_snapshot()
    with subject.activate():
        pass
    expect_registry_unchanged(before, "after leaving the context", safe_globals=False)
