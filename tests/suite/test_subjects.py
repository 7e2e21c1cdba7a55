from __future__ import annotations

import contextlib
import sys
import types

import pytest

from kvconform_conformance.runner.subjects import BUILT_IN, SubjectReferenceError, resolve


class Reusable:
    """A context manager that can be entered again and again."""

    entered = 0

    def __enter__(self):
        type(self).entered += 1
        return self

    def __exit__(self, *_):
        return None


@contextlib.contextmanager
def made():
    yield "made"


@pytest.fixture(autouse=True)
def mine(monkeypatch):
    module = types.ModuleType("mine")
    module.reusable, module.made, module.number, module.gives_none = Reusable(), made, 3, lambda: None
    module.inside = types.SimpleNamespace(made=made)
    monkeypatch.setitem(sys.modules, "mine", module)


def test_built_in_ones_are_found_by_name():
    for name in BUILT_IN:
        assert resolve(name) is BUILT_IN[name]


@pytest.mark.parametrize("reference", ["mine:made", "mine:inside.made"])
def test_a_callable_is_called_for_a_context_each_time(reference):
    subject = resolve(reference)
    assert subject.name == reference
    for _ in range(2):
        with subject.activate() as entered:
            assert entered == "made"


def test_a_context_manager_is_entered_again_and_again():
    before = Reusable.entered
    subject = resolve("mine:reusable")
    for _ in range(2):
        with subject.activate():
            pass
    assert Reusable.entered == before + 2


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("kvconformm", "give one of 'kvconform', "),
        ("mine:", "or module:attribute"),
        ("mine:nothing", "try: python -c 'from mine import nothing'"),
        ("mine:inside.nothing", "try: python -c 'from mine import inside'"),
        ("no_such_module:x", "No module named 'no_such_module'"),
        ("mine:number", "is int, neither a context manager nor callable"),
    ],
)
def test_what_cannot_be_found_or_used_is_one_error(reference, said):
    with pytest.raises(SubjectReferenceError) as caught:
        resolve(reference)
    assert said in str(caught.value)


def test_a_callable_that_gives_no_context_is_said_so_when_it_is_entered():
    with pytest.raises(TypeError, match="'mine:gives_none' returned NoneType, expected a context manager"):
        resolve("mine:gives_none").activate()
