"""Programs in another form, and a step that is compiled once: each check notices a fault that is planted for it."""

import contextlib

import pytest

pytest.importorskip("transformers", reason="the suite is about transformers")

import torch
from mutants.generated.wiring import wire
from mutants.plant import kvconform_context
from mutants.tools import on_values

from kvconform.checks.caches import BY_NAME
from kvconform.checks.errors import ExpectationError
from kvconform.checks.registry import registry_snapshot, restore_registry
from kvconform_conformance import test_dynamic_shape
from kvconform_conformance.examples import programs
from kvconform_conformance.examples.compiled import COMPILED, expect_compiles_once
from kvconform_conformance.runner.subjects import Subject

pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLE = BY_NAME["dynamic-two-layers"]
OURS = Subject("rewritten", kvconform_context)


class Wrong(torch.nn.Module):
    """A program whose result is a little off."""

    def __init__(self, program):
        super().__init__()
        self.program = program

    def forward(self, *args):
        result, cache = self.program(*args)
        return result + 1e-2, cache


def decomposed_wrongly(monkeypatch):
    original = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(
        torch.export.ExportedProgram,
        "run_decompositions",
        lambda self, *args: Wrong(original(self, *args).module()),
    )


def unflattened_wrongly(monkeypatch):
    original = torch.export.unflatten
    monkeypatch.setattr(torch.export, "unflatten", lambda program: Wrong(original(program)))


def one_size_only(monkeypatch):
    """What constant folding of a size does: the program is one of constant shapes."""

    def constant(self, *args):
        with OURS.activate():
            return programs.decode_step(OURS, EXAMPLE, dynamic=False).exported

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", constant)


@pytest.mark.parametrize(
    ("check", "plant"),
    [("decomposed", decomposed_wrongly), ("decomposed", one_size_only), ("unflattened", unflattened_wrongly)],
)
def test_a_wrong_rewriting_is_noticed(check, plant, monkeypatch):
    monkeypatch.setattr(programs, "_MADE", {})
    ask = getattr(test_dynamic_shape, f"test_{check}")
    with kvconform_context():
        ask(OURS, EXAMPLE)
        plant(monkeypatch)
        with pytest.raises(ExpectationError, match=r"after (run_decompositions|unflatten)"):
            ask(OURS, EXAMPLE)


def test_what_a_rewriting_raises_is_a_failed_expectation(monkeypatch):
    def refuse(program):
        raise TypeError("planted")

    monkeypatch.setattr(torch.export, "unflatten", refuse)
    monkeypatch.setattr(programs, "_MADE", {})
    with kvconform_context(), pytest.raises(ExpectationError, match="unflatten raised TypeError: planted"):
        test_dynamic_shape.test_unflattened(OURS, EXAMPLE)


@contextlib.contextmanager
def comes_back_in_another_order():
    """Every second round trip gives tensors whose memory is in another order: compiled code has to be made again."""
    trips = []

    def turn(value):
        is_state = isinstance(value, torch.Tensor) and value.dim() == 4
        return value.transpose(2, 3).contiguous().transpose(2, 3) if is_state else value

    def values(given):
        trips.append(1)
        return [turn(value) for value in given] if len(trips) % 2 == 0 else given

    with kvconform_context():
        inside = registry_snapshot()
        wire(unflatten=on_values(values))
        try:
            yield
        finally:
            restore_registry(inside)


def test_a_cache_that_comes_back_as_another_is_compiled_again_and_noticed():
    with comes_back_in_another_order(), pytest.raises(ExpectationError, match="2 compilations, expected 1"):
        expect_compiles_once(COMPILED[0])


def test_a_step_that_does_not_compile_is_a_failed_expectation(monkeypatch):
    def refuse(*args, **kwargs):
        def step(*args):
            raise RuntimeError("planted")

        return step

    monkeypatch.setattr(torch, "compile", refuse)
    with kvconform_context(), pytest.raises(ExpectationError, match=r"torch.compile raised RuntimeError: planted"):
        expect_compiles_once(COMPILED[0])
