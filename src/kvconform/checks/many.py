"""Asks one question of many cases, and reports the plainest that fails.

A message tells what is wrong in the plainest case, and how to build that cache; the command that repeats the check
stands beside it in the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kvconform.checks import making
from kvconform.checks.cases import Case, shrink
from kvconform.checks.errors import ExpectationError
from kvconform.checks.needs import NotApplicableError

Question = Callable[[Case], None]
"""Raises where a registration answers wrongly for a case."""


def expect_for_all(cases: Iterable[Case], question: Question) -> int:
    """Ask a question of every case that this release can hold, and return how many those were.

    Raises:
        ExpectationError: the answer is wrong for one; it names the plainest one that was found from there.
        NotApplicableError: this release can hold none of them, so that nothing was asked.
    """
    __tracebackhide__ = True
    asked = 0
    for case in cases:
        if not making.possible(case):
            continue
        error = _ask(question, case)
        if isinstance(error, NotApplicableError):
            # Each property is possible, and all of them at once are not.
            continue
        asked += 1
        if error is not None:
            _report(case, question, error)
    if not asked:
        raise NotApplicableError("this release has no cache of the kind that is asked about")
    return asked


def _ask(question: Question, case: Case) -> Exception | None:
    try:
        question(case)
    except Exception as error:  # noqa: BLE001 - raised again, with the plainest case that ends like this
        return error
    return None


def _report(case: Case, question: Question, error: Exception) -> None:
    """Raise what the plainest case raises that ends as this one does."""
    __tracebackhide__ = True
    kind = type(error)

    def fails(other: Case) -> bool:
        return making.possible(other) and type(_ask(question, other)) is kind

    smallest = shrink(case, fails)
    found = _ask(question, smallest) or error
    example = f"{smallest}; build it: kvconform.checks.making.build({smallest})"
    if isinstance(found, ExpectationError):
        raise ExpectationError(f"{found} [{example}]") from None
    raise RuntimeError(f"{type(found).__name__}: {found} [{example}]") from found
