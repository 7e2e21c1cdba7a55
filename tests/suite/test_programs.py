"""Programs that several checks ask: made once, for one subject, and each check's answer is as when it runs alone."""

import pytest

pytest.importorskip("transformers", reason="the suite is about transformers")

from kvconform.checks.caches import BY_NAME
from kvconform.checks.errors import ExpectationError
from kvconform_conformance.examples import programs
from kvconform_conformance.runner.subjects import BUILT_IN, Subject

EXAMPLE = BY_NAME["dynamic-two-layers"]
OURS = BUILT_IN["kvconform"]
SAME_UNDER_ANOTHER_NAME = Subject("other", OURS.activate)


@pytest.fixture(autouse=True)
def _nothing_made(monkeypatch):
    monkeypatch.setattr(programs, "_MADE", {})


@pytest.fixture
def exports(monkeypatch):
    """Whether each export was dynamic; the module itself stands for its program."""
    seen = []

    def export(module, inputs, asked, *, where):
        seen.append(asked is not None)
        return module

    monkeypatch.setattr(programs, "export", export)
    return seen


def decode_step(subject, *, dynamic=False):
    with subject.activate():
        return programs.decode_step(subject, EXAMPLE, dynamic=dynamic)


def test_a_program_is_exported_once_and_asked_again(exports):
    first, second = decode_step(OURS), decode_step(OURS)
    assert first.exported is second.exported
    assert len(exports) == 1


def test_dynamic_and_constant_sizes_are_two_programs(exports):
    decode_step(OURS)
    decode_step(OURS, dynamic=True)
    assert exports == [False, True]


def test_no_subject_gets_the_program_of_another(exports):
    first, second = decode_step(OURS), decode_step(SAME_UNDER_ANOTHER_NAME)
    assert first.exported is not second.exported
    assert len(exports) == 2


def test_an_unregistered_cache_fails_although_a_program_was_made(exports):
    decode_step(OURS)
    with pytest.raises(ExpectationError, match="not registered"):
        programs.decode_step(OURS, EXAMPLE, dynamic=False)


def test_alone_and_together_give_the_same_answer():
    decode_step(OURS)
    together = decode_step(OURS)
    programs._MADE.clear()
    alone = decode_step(OURS)
    assert alone.exported is not together.exported
    assert alone.exported.graph_module.code == together.exported.graph_module.code
    assert alone.exported.call_spec == together.exported.call_spec


def test_a_refusal_is_told_to_every_check_as_an_exception_of_its_own():
    asked = []

    def refuse():
        asked.append(1)
        raise ExpectationError("no program")

    raised = []
    for _ in range(2):
        with pytest.raises(ExpectationError, match="no program") as caught:
            programs.once(("key",), refuse)
        raised.append(caught.value)
    assert asked == [1]
    assert raised[0] is not raised[1]


def test_another_error_is_not_kept():
    asked = []

    def err():
        asked.append(1)
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            programs.once(("key",), err)
    assert asked == [1, 1]
