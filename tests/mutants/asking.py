"""The suite's checks, asked without pytest: one process, warm, that stops at the first wrong answer.

Pytest would start a session for each of hundreds of mutants. What it does beside calling a function is little: it
expands parameters, asks what a check needs, enters the subject for who wants it entered, and the suite's plugin puts
torch's tables back. :func:`checks` and :func:`ask` do that; a test compares their ids with those of the suite.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvconform.checks.needs import NotApplicableError
from kvconform.checks.registry import RegistrySnapshot, registry_snapshot, restore_registry
from kvconform_conformance.runner.subjects import Subject

CATEGORIES = ("registration", "round_trip", "behaviour", "device")
# They start processes of their own, or need a GPU.
LEFT_OUT = ("import-registers-nothing",)


@dataclass(frozen=True)
class Check:
    """One check with its parameters."""

    id: str
    function: Callable[..., None]
    parameters: dict[str, Any] = field(default_factory=dict)
    needs: tuple[Any, ...] = ()


def checks(categories: tuple[str, ...] = CATEGORIES) -> list[Check]:
    """Every check of some categories, those aside that a warm process on a CPU cannot ask."""
    found = [check for category in categories for check in _checks_of(category)]
    return [check for check in found if not any(name in check.id for name in LEFT_OUT)]


def _checks_of(category: str) -> Iterator[Check]:
    module = importlib.import_module(f"kvconform_conformance.test_{category}")
    for name, function in vars(module).items():
        if not name.startswith("test_") or not inspect.isfunction(function):
            continue
        marks = getattr(function, "pytestmark", [])
        if any(mark.name == "cuda" for mark in marks):
            continue
        needs = [need for mark in marks if mark.name == "needs" for need in mark.args]
        axes = [_axis(mark) for mark in marks if mark.name == "parametrize"]
        question = f"{category}/{name.removeprefix('test_')}".replace("_", "-")
        for points in itertools.product(*axes):
            labels = "-".join(label for label, *_ in points)
            parameters = {key: value for _, key, value, _ in points}
            own = [need for _, _, value, marked in points for need in (*marked, *getattr(value, "needs", ()))]
            yield Check(f"{question}[{labels}]" if labels else question, function, parameters, (*needs, *own))


def _axis(mark: Any) -> list[tuple[str, str, Any, list[Any]]]:
    """The values of one ``parametrize``: label, argument, value, and what the value needs."""
    name, values = mark.args[0], mark.args[1]
    label = mark.kwargs.get("ids")
    points = []
    for index, value in enumerate(values):
        plain, marks = (
            (value.values[0], value.marks) if hasattr(value, "values") and hasattr(value, "marks") else (value, ())
        )
        needs = [need for one in marks if one.name == "needs" for need in one.args]
        text = label(plain) if callable(label) else label[index] if label else str(plain)
        points.append((text, name, plain, needs))
    return points


@dataclass(frozen=True)
class Answer:
    """What became of a check: pass, na, fail or error."""

    status: str
    seconds: float = 0.0
    message: str = ""


def enters_itself(check: Check) -> bool:
    """Whether a check enters and leaves the subject by itself."""
    return "registered" not in inspect.signature(check.function).parameters


def ask(check: Check, subject: Subject) -> Answer:
    """Ask one check of one subject; torch's tables are put back afterwards."""
    [(_, answer)] = ask_all([check], subject)
    return answer


def ask_all(found: Sequence[Check], subject: Subject) -> Iterator[tuple[str, Answer]]:
    """Ask several checks; the subject is entered once for those that want it entered, after those that enter it.

    Torch's tables are put back after each check to what they were before it.
    """
    before = registry_snapshot()
    for check in (one for one in found if enters_itself(one)):
        yield check.id, _ask(check, subject)
        restore_registry(before)
    with contextlib.ExitStack() as stack:
        inside = _enter(stack, subject)
        for check in (one for one in found if not enters_itself(one)):
            if isinstance(inside, Answer):
                yield check.id, inside
                continue
            yield check.id, _ask(check, subject)
            restore_registry(inside)
    restore_registry(before)


def _enter(stack: contextlib.ExitStack, subject: Subject) -> RegistrySnapshot | Answer:
    """The tables inside the subject's context, or how entering it failed."""
    try:
        stack.enter_context(subject.activate())
    except Exception as error:  # noqa: BLE001 - whatever a wrong subject raises
        return Answer("error", message=f"{type(error).__name__}: {error}")
    return registry_snapshot()


def _ask(check: Check, subject: Subject) -> Answer:
    begun = time.perf_counter()
    try:
        _call(check, subject)
        status, message = "pass", ""
    except NotApplicableError as error:
        status, message = "na", str(error)
    except AssertionError as error:
        status, message = "fail", str(error)
    except Exception as error:  # noqa: BLE001 - whatever a wrong subject raises
        status, message = "error", f"{type(error).__name__}: {error}"
    return Answer(status, time.perf_counter() - begun, message)


def _call(check: Check, subject: Subject) -> None:
    for need in check.needs:
        need.require()
    wanted = inspect.signature(check.function).parameters
    arguments = dict(check.parameters)
    arguments |= {name: subject for name in ("subject", "registered") if name in wanted}
    if "device" in wanted:
        arguments["device"] = "cpu"
    if "tmp_path" not in wanted:
        check.function(**arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        check.function(**arguments, tmp_path=Path(folder))
