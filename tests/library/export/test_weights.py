"""Weights in a file of their own: each once, whatever shares memory with what, and the same ones come back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvconform.export import weights
from kvconform.export.errors import BundleError

KINDS = ("own", "tied", "part", "strided", "scalar", "empty", "complex", "buffer")
DTYPES = (torch.float32, torch.bfloat16, torch.int8, torch.bool)


class Program:
    """What this module needs of an exported program."""

    def __init__(self, state):
        self.state_dict = state


def tensor(kind, earlier, dtype, number):
    """A tensor that has something to do with earlier ones, or nothing."""
    whole = (torch.arange(24).reshape(4, 6) + number).to(dtype)
    if kind == "tied" and earlier:
        return earlier[-1]
    if kind == "part" and earlier and earlier[-1].dim() == 2:
        return earlier[-1][1:]
    return {
        "strided": whole.t(),
        "scalar": whole[0, 0].clone(),
        "empty": whole[:0],
        "complex": whole.to(torch.complex128),
    }.get(kind, whole)


def programs_of(plans):
    """Programs whose tensors may be those of the program before."""
    earlier, programs = [], []
    for plan in plans:
        state = {}
        for number, (kind, dtype) in enumerate(plan):
            made = tensor(kind, earlier, dtype, len(earlier))
            earlier.append(made)
            parameter = made.dtype.is_floating_point and kind != "buffer"
            state[f"layer.{number}"] = torch.nn.Parameter(made, requires_grad=False) if parameter else made
        programs.append(Program(state))
    return programs


PLANS = st.lists(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(DTYPES)), max_size=6), max_size=3)


@settings(deadline=None, max_examples=60)
@given(plans=PLANS)
def test_the_same_weights_come_back(tmp_path_factory, plans):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    programs = programs_of(plans)
    before = [dict(program.state_dict) for program in programs]
    tensors, names = weights.together(programs)
    weights.write(path, tensors, "one")
    loaded = []
    for program, apart in zip(programs, names, strict=True):
        with weights.stand_ins(program, apart):
            held = dict(program.state_dict)
        for name in apart:
            assert held[name].untyped_storage().nbytes() == held[name].element_size(), "one element stands in"
            assert held[name].shape == program.state_dict[name].shape
        loaded.append(Program(held))
    read = weights.read(path, "one")
    for program, apart, wanted in zip(loaded, names, before, strict=True):
        weights.attach(program, apart, read)
        assert list(program.state_dict) == list(wanted)
        for name, value in wanted.items():
            found = program.state_dict[name]
            assert torch.equal(found, value), name
            assert type(found) is type(value), name
            assert (found.dtype, found.requires_grad) == (value.dtype, value.requires_grad), name
    for program, wanted in zip(programs, before, strict=True):
        assert all(program.state_dict[name] is value for name, value in wanted.items()), "nothing stands in any more"


@settings(deadline=None, max_examples=60)
@given(plans=PLANS)
def test_what_is_one_tensor_is_one_afterwards(tmp_path_factory, plans):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    programs = programs_of(plans)
    tensors, names = weights.together(programs)
    weights.write(path, tensors, "one")
    assert len({(one.data_ptr(), one.dtype, one.shape) for one in tensors.values()}) == len(tensors)
    read = weights.read(path, "one")
    places = {}
    for program, apart in zip(programs, names, strict=True):
        loaded = Program(dict(program.state_dict))
        weights.attach(loaded, apart, read)
        for name in apart:
            key = (program.state_dict[name].data_ptr(), program.state_dict[name].dtype, program.state_dict[name].shape)
            assert places.setdefault(key, loaded.state_dict[name].data_ptr()) == loaded.state_dict[name].data_ptr()


def test_a_failure_while_writing_leaves_the_weights_in_place():
    state = {"w": torch.ones(2, 3)}
    program = Program(dict(state))

    def fails():
        with weights.stand_ins(program, {"w": "w"}):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        fails()
    assert program.state_dict["w"] is state["w"]


@pytest.mark.parametrize("other", [torch.ones(3, 2), torch.ones(2, 3, dtype=torch.float64), None])
def test_weights_that_do_not_fit_are_refused(other):
    program = Program({"w": torch.ones(2, 3)})
    with pytest.raises(BundleError, match="do not fit the programs"):
        weights.attach(program, {"w": "w"}, {} if other is None else {"w": other})
