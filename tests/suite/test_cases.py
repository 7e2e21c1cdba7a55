"""Cases: drawn alike every time, made smaller when one fails, built as they say, compared in everything."""

import copy
from dataclasses import replace

import pytest
import torch

from kvconform.checks import making, spaces
from kvconform.checks.cases import PLAIN, Case, draw, shrink
from kvconform.checks.errors import ExpectationError
from kvconform.checks.many import expect_for_all
from kvconform.checks.needs import NotApplicableError
from kvconform.checks.observe import differences, observe
from kvconform.checks.tensors import TENSORS, OwnTensor
from kvconform.checks.whole import agree

pytest.importorskip("transformers", reason="cases are caches of transformers")


def test_drawn_alike_every_time():
    for space in spaces.SPACES:
        assert list(space.cases()) == list(space.cases())
        assert len(set(space.cases())) > space.count / 4, "hardly two cases of a space differ"


def test_another_name_draws_other_cases():
    choices = {"layers": range(1, 100), "batch": range(1, 100)}
    assert list(draw("one", 5, choices)) != list(draw("another", 5, choices))


@pytest.mark.parametrize(
    ("fails", "smallest"),
    [
        (lambda case: case.layers > 10, Case(layers=11)),
        (lambda case: case.length == 0, Case(length=0)),
        (lambda case: case.batch < 2 and case.values > case.width, Case(batch=1, values=5)),
        (lambda case: case.dtype == "float16" and case.layers > 1, Case(layers=2, dtype="float16")),
    ],
)
def test_shrinks_to_the_plainest(fails, smallest):
    big = Case("pair", layers=48, batch=1, heads=5, length=0, width=4, values=64, dtype="float16", tensors="grad")
    assert fails(big)
    assert shrink(big, fails) == smallest


def test_the_message_names_the_plainest_case():
    def question(case):
        if case.layers > 10 and case.dtype == "float16":
            raise ExpectationError("layers are in another order")

    with pytest.raises(ExpectationError, match=r"build\(Case\(layers=11, dtype='float16'\)\)"):
        expect_for_all([PLAIN, Case(layers=40, batch=7, dtype="float16", tensors="grad")], question)


def test_an_error_names_the_plainest_case():
    def question(case):
        if case.batch == 1:
            raise KeyError("batch")

    with pytest.raises(RuntimeError, match=r"KeyError: 'batch' .*Case\(batch=1\)"):
        expect_for_all([Case(batch=1, layers=7)], question)


def test_nothing_asked_is_not_applicable():
    with pytest.raises(NotApplicableError):
        expect_for_all([Case(dtype="no_such_type")], lambda case: None)


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="no kind of cache 'dinamic'"):
        making.build(Case(kind="dinamic"))


@pytest.mark.parametrize("space", spaces.SPACES, ids=lambda space: space.name)
def test_most_cases_of_a_space_are_possible(space):
    """On the newest release nearly all are; a space that is hardly asked would pass for nothing."""
    cases = list(space.cases())
    assert sum(map(making.possible, cases)) > len(cases) / 5


@pytest.mark.parametrize("tensors", TENSORS)
def test_tensors_are_what_their_name_says(tensors):
    cache = making.build(Case(layers=2, tensors=tensors))
    held = [atom for atom in observe(cache).values() if isinstance(atom, torch.Tensor) and atom.dim() == 4]
    keys, values = held[0], held[1] if len(held) > 1 else held[0]
    holds = {
        "grad": keys.requires_grad and keys.is_leaf,
        "graph": keys.grad_fn is not None,
        "keys-grad": keys.requires_grad and not values.requires_grad,
        "strided": not keys.is_contiguous(),
        "sliced": not keys.is_contiguous() and keys.storage_offset() > 0,
        "expanded": keys.stride(0) == 0,
        "one-storage": keys.untyped_storage().data_ptr() == held[-1].untyped_storage().data_ptr(),
        "values-are-keys": len(held) == 2,
        "layers-alike": len(held) == 2,
        "shared-elements": keys.untyped_storage().data_ptr() == values.untyped_storage().data_ptr(),
        "parameters": type(keys) is torch.nn.Parameter,
        "own-tensors": type(keys) is OwnTensor,
        "inference": keys.is_inference(),
        "marked": hasattr(keys, "own_mark"),
    }
    assert holds[tensors]


def _change(cache, index):
    """One change of a cache, each of another kind."""
    layers = vars(cache).get("layers") or [cache]
    first = layers[0]
    changes = [
        lambda: setattr(first, "own_extra", 1),
        lambda: setattr(first, "own_list", [0, [0, "three"]]),
        lambda: first.own_table.update(b=first.own_table.pop("b")),
        lambda: delattr(first, "own_text"),
        lambda: setattr(first, "own_flag", int(first.own_flag)),
        lambda: setattr(first, "own_tensor", first.own_tensor.double()),
        lambda: setattr(first, "own_set", {*first.own_set, 77}),
        lambda: setattr(first, "own_table", first.own_list),
        lambda: setattr(cache, "__class__", making.own_class(type(cache))),
    ]
    changes[index % len(changes)]()


@pytest.mark.parametrize("index", range(9))
def test_agreeing_is_having_no_differences(index):
    """The quick comparison answers as the table of differences does."""
    one = making.build(replace(PLAIN, layers=2, attributes="cache"))
    for layer in vars(one).get("layers") or ():
        making._set(layer, 5)
    other = copy.deepcopy(one)
    assert agree(other, one)
    assert not differences(observe(other), observe(one))
    _change(other, index)
    assert not agree(other, one)
    assert differences(observe(other), observe(one))
