"""Planted checks: each misbehaves in one way, and its neighbours must not suffer."""

import contextlib
import ctypes
import os
import time

import pytest

from kvconform.checks import ExpectationError
from kvconform_conformance.runner.needs import Need, needs, needs_cuda


def test_segfault(subject):
    ctypes.string_at(0)


def test_hang(subject):
    time.sleep(600)


def test_hang_holding_the_gil(subject):
    ctypes.pythonapi.sleep(600)


def test_exit(subject):
    os._exit(3)


def test_exit_zero(subject):
    os._exit(0)


def test_kill(subject):
    os.kill(os.getpid(), 9)


def test_system_exit(subject):
    raise SystemExit(0)


def test_pytest_exit(subject):
    pytest.exit("enough")


@pytest.fixture
def broken():
    raise RuntimeError("fixture is broken")


def test_fixture(subject, broken):
    pass


@pytest.fixture
def broken_teardown():
    yield
    raise RuntimeError("teardown is broken")


def test_teardown(subject, broken_teardown):
    pass


def test_memory(subject):
    raise MemoryError


def test_unicode(subject):
    raise ExpectationError("größer als 東京 \ud800 \x00 <b>&amp;</b>")


def test_huge(subject):
    raise ExpectationError("x" * 5_000_000)


class HostileError(Exception):
    def __str__(self):
        raise ValueError("no text for you")


def test_hostile(subject):
    raise HostileError


def test_assert(subject):
    assert 1 + 1 == 3, "arithmetic"


def test_skips_itself(subject):
    pytest.skip("I would rather not")


def test_importorskip(subject):
    pytest.importorskip("no_such_module_at_all")


def test_xfails_itself(subject):
    pytest.xfail("known")


@pytest.mark.xfail(reason="known")
def test_marked_xfail(subject):
    raise AssertionError


@pytest.mark.xfail(reason="known")
def test_marked_xpass(subject):
    pass


@pytest.mark.skip(reason="not today")
def test_marked_skip(subject):
    pass


@needs(Need(lambda: False, "this release has no such class"))
def test_not_applicable(subject):
    raise AssertionError("must not run")


@needs(Need(lambda: 1 / 0 == 1, "unreachable"))
def test_need_raises(subject):
    pass


def test_claims_not_applicable(subject):
    from kvconform_conformance.runner.needs import NotApplicableError

    raise NotApplicableError("I decide that myself")


@needs_cuda()
def test_cuda(subject):
    pass


def test_entered(registered):
    pass


def test_pass(subject):
    pass


def test_leaves_a_registration(subject):
    import torch

    class Leaked:
        pass

    with contextlib.suppress(ValueError):
        torch.utils._pytree.register_pytree_node(Leaked, lambda x: ([], None), lambda v, c: Leaked())


def test_sees_no_leak(subject):
    import torch

    assert not [cls for cls in torch.utils._pytree.SUPPORTED_NODES if getattr(cls, "__name__", "") == "Leaked"]
