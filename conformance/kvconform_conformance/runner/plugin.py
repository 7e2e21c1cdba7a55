"""The pytest plugin of a worker: which checks run, on which subject, and what each one's outcome is.

Loaded in the workers (and in the controller, where it only knows the options).
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import importlib
import json
import random
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import pytest

from kvconform.checks.registry import RegistrySnapshot, registry_snapshot, restore_registry
from kvconform_conformance.runner import optin, order, subjects
from kvconform_conformance.runner.needs import NotApplicableError, PolicySkipError, require_all

PROPERTY = "kvconform"
_FAULTS: pytest.StashKey[IO[str]] = pytest.StashKey()
_BASELINE: pytest.StashKey[RegistrySnapshot] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that `python -m kvconform check` passes on to its workers."""
    group = parser.getgroup("kvconform")
    group.addoption("--kvconform-subject", action="append", default=[])
    group.addoption("--kvconform-category", action="append", default=[])
    group.addoption("--kvconform-exactly", default=None)
    group.addoption("--kvconform-everything", action="store_true")
    group.addoption("--kvconform-device", default="cpu")
    group.addoption("--kvconform-timeout", type=float, default=240.0)
    group.addoption("--kvconform-faults", default=None)
    group.addoption("--kvconform-shuffle", type=int, default=None)
    group.addoption("--kvconform-leave-out", default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, and let a worker write its last words where the controller finds them."""
    config.addinivalue_line("markers", "needs(*needs): what the release must have (else na)")
    config.addinivalue_line("markers", "cuda(devices): runs real CUDA kernels (else skip)")
    config.addinivalue_line("markers", "limit(seconds): a time limit below that of the run")
    config.addinivalue_line("markers", "strictly_without_subject: the check does not use a subject")
    # The other styles parse the file of every frame of every failure, and the record has its own words. The option is
    # that of a plugin which is left out here.
    config.option.tbstyle = "native"
    folder = config.getoption("--kvconform-faults")
    # Not the environment's word: a run inside somebody's worker of pytest-xdist is not one of ours.
    worker = getattr(config, "workerinput", {}).get("workerid")
    if folder and worker:
        stream = (Path(folder) / f"{worker}.txt").open("w", encoding="utf-8")
        config.stash[_FAULTS] = stream
        faulthandler.enable(stream, all_threads=False)
        prepare_torch()


# Modules that register classes for good when they are imported, or that the built-in subjects import.
_EARLY_IMPORTS = (
    "torch.export",
    "torch.export._trace",
    "torch._dynamo",
    "torch.fx._pytree",
    "transformers.cache_utils",
    "transformers.modeling_outputs",
    "transformers.masking_utils",
    "transformers.integrations.executorch",
    "transformers.exporters.exporter_dynamo",
)


def prepare_torch() -> None:
    """One thread a worker, and everything slow or registering imported before the tables are first read.

    What was imported stays: the garbage collector need not walk through it again and again.
    """
    import torch

    torch.set_num_threads(1)
    for name in _EARLY_IMPORTS:
        # What a release lacks or cannot import is met again, and judged, by the check or the subject that wants it.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()
    # Extensions report what is left of them at the end.
    atexit.register(gc.unfreeze)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Put every check to every subject; the subject comes first in the id, and no subject's name has a hyphen."""
    if "subject" in metafunc.fixturenames:
        names = metafunc.config.getoption("--kvconform-subject")
        found = [subjects.resolve(name) for name in names]
        metafunc.parametrize("subject", found, ids=[f"{subject.name}--" for subject in found])


pytest_generate_tests = pytest.hookimpl(tryfirst=True)(pytest_generate_tests)


def split_nodeid(nodeid: str) -> tuple[str, str]:
    """The subject and the stable id of a check.

    `test_round_trip.py::test_dynamic[native--one]` is `round-trip/dynamic[one]`.

    Pytest's own node ids are left alone: workers and controller agree on them.
    """
    file, _, rest = nodeid.partition("::")
    function, _, parameters = rest.partition("[")
    category = file.rpartition("/")[2].removeprefix("test_").removesuffix(".py").replace("_", "-")
    check = f"{category}/{function.removeprefix('test_').replace('_', '-')}"
    subject, _, parameters = parameters.removesuffix("]").partition("--")
    parameters = parameters.removeprefix("-")
    return subject, f"{check}[{parameters}]" if parameters else check


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not asked for (opt-in categories are, unless named), and let `-k` match ids."""
    categories = config.getoption("--kvconform-category")
    exactly = config.getoption("--kvconform-exactly")
    everything = config.getoption("--kvconform-everything")
    kept: list[pytest.Item] = []
    answered = _answered(config.getoption("--kvconform-leave-out"))
    for item in items:
        subject, check = split_nodeid(item.nodeid)
        item.extra_keyword_matches.update({check, subject})
        if (subject, check) in answered:
            continue
        if optin.is_wanted(check.split("/", 1)[0], check, categories, exactly, everything=everything):
            kept.append(item)
    seed = config.getoption("--kvconform-shuffle")
    if seed is None:
        kept = order.arrange(kept, getattr(config, "workerinput", {}).get("workercount", 1), _describe)
    else:
        # Seeded, since the controller and its workers must agree on the order.
        random.Random(seed).shuffle(kept)  # noqa: S311 - an order, no secret
    items[:] = kept


def _answered(path: str | None) -> set[tuple[str, str]]:
    """The checks whose answers are taken over from an earlier run."""
    return {(subject, check) for subject, check in json.loads(Path(path).read_text("utf-8"))} if path else set()


def _describe(item: pytest.Item) -> tuple[str, str, str]:
    """The subject, the id and the name of the example of a check."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return (*split_nodeid(item.nodeid), getattr(parameters.get("example", parameters.get("architecture")), "name", ""))


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Limit the time of a check, and give the next one the tables as they were before the first.

    faulthandler's watchdog is a C thread: it ends a worker that hangs while it holds the GIL, and says so in the
    worker's file.
    """
    stream = item.config.stash.get(_FAULTS, None)
    if stream is None:
        yield
        return
    if _BASELINE not in item.config.stash:
        item.config.stash[_BASELINE] = registry_snapshot()
    stream.seek(0)
    stream.truncate()
    faulthandler.dump_traceback_later(_limit(item), exit=True, file=stream)
    yield
    faulthandler.cancel_dump_traceback_later()
    item.config.stash[_BASELINE] = restore_registry(item.config.stash[_BASELINE])


def _limit(item: pytest.Item) -> float:
    """The seconds that a check may take: those of the run, or fewer where the check says so."""
    own = item.get_closest_marker("limit")
    seconds: float = item.config.getoption("--kvconform-timeout")
    return min(seconds, own.args[0]) if own else seconds


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Ask what the subject and the check need, before the subject runs."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    subject = parameters.get("subject")
    for requirement in subject.needs if subject else ():
        requirement.require()
    require_all(item, item.config.getoption("--kvconform-device"))


@pytest.fixture
def registered(subject: subjects.Subject) -> Iterator[subjects.Subject]:
    """Enter the subject for the length of a check."""
    context: AbstractContextManager[Any] = subject.activate()
    with context:
        yield subject


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device that this run computes on."""
    name: str = request.config.getoption("--kvconform-device")
    return name


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Attach the outcome of one phase, and keep nothing in the report that could not be sent to the controller."""
    result: Any = yield
    report = result.get_result()
    status, message = classify(call, hasattr(report, "wasxfail") or item.get_closest_marker("xfail") is not None)
    message = _sendable(message)
    report.user_properties = [(PROPERTY, json.dumps({"status": status, "message": message}))]
    report.sections = []
    report.outcome = "passed" if status == "pass" else "failed"
    report.longrepr = message or None


def classify(call: pytest.CallInfo[Any], is_xfail: bool) -> tuple[str, str]:  # noqa: PLR0911 - one return a row of the table
    """The status of one phase.

    ================================  ==========================================================
    raised                            status
    ================================  ==========================================================
    nothing                           pass (error where the check is marked xfail)
    NotApplicableError, setup         na
    PolicySkipError, setup            skip
    AssertionError, call              fail
    pytest.skip, xfail, exit, others  error
    ================================  ==========================================================
    """
    if is_xfail:
        return "error", "xfail is forbidden in the suite: expected failures stand in the baseline"
    if call.excinfo is None:
        return "pass", ""
    raised = call.excinfo.value
    if call.when == "setup" and isinstance(raised, NotApplicableError):
        return "na", str(raised)
    if call.when == "setup" and isinstance(raised, PolicySkipError):
        return "skip", str(raised)
    if isinstance(raised, pytest.skip.Exception):
        return "error", f"a check may not skip itself: pytest.skip({str(raised)!r}); declare what it needs"
    if isinstance(raised, AssertionError) and call.when == "call":
        return "fail", _text(raised) or f"assertion failed{_place(call)}"
    return "error", f"{type(raised).__name__}: {_text(raised)}{_place(call)}"


def _text(error: BaseException) -> str:
    """An exception's text, or why it has none: `__str__` is the subject's code too."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - whatever a subject's __str__ raises must not cost the outcome
        return f"(its text cannot be had: {type(failure).__name__})"


def _place(call: pytest.CallInfo[Any]) -> str:
    """Where it was raised: the last file, line and function of the traceback."""
    assert call.excinfo is not None
    entries = list(call.excinfo.traceback)
    if not entries:
        return ""
    last = entries[-1]
    return f" (at {last.path}:{last.lineno + 1} in {last.frame.code.name})"


def _sendable(message: str, limit: int = 4000) -> str:
    """A message that the channel to the controller can carry: valid UTF-8, and not megabytes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", message).encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more characters)"


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Iterator[Any]:
    """Turn an attempt to end the whole session from inside a check into that check's error."""
    try:
        return (yield)
    except pytest.exit.Exception as error:
        raise RuntimeError(f"a check may not end the run: pytest.exit({str(error)!r})") from error
