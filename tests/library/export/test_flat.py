"""A program as a function of tensors alone: counters travel as sizes, and nothing else changes."""

import pytest
import torch
from torch.utils import _pytree as py_pytree

from kvconform import exportable
from kvconform.export.decoder import export_decoder
from kvconform.export.flat import carried, flat_program, output_counters, uncarried
from kvconform.export.tiny import make_tiny

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def counting():
    """A decode program with a counter among its inputs: a sliding layer past its window."""
    exported = export_decoder(make_tiny("MistralConfig"), lengths=[13])
    return next(one for one in exported.programs.of("decode") if any(not leaf.dtype for leaf in one.leaves))


@pytest.mark.parametrize("counter", [0, 1, 9, 10**6])
def test_a_counter_is_the_size_of_a_tensor_without_elements(counter):
    tensor = torch.ones(2)
    travelling = carried([tensor, counter])
    assert travelling[0] is tensor
    assert travelling[1].numel() == 0
    back = uncarried(travelling, [False, True])
    assert back[0] is tensor
    assert back[1] == counter


def test_a_counter_stays_dynamic(counting):
    """Another counter than the exported one gives what the program gives; kept constant it would be refused."""
    counters = [not leaf.dtype for leaf in counting.leaves]
    with exportable():
        flat = flat_program(counting).module()
        leaves = py_pytree.tree_leaves(counting.exported.example_inputs)
        moved = [leaf + 1 if counter else leaf for leaf, counter in zip(leaves, counters, strict=True)]
        # One token more was seen: the mask is longer too.
        moved = [
            torch.cat([leaf, leaf[:, -1:]], 1) if one.name == "attention_mask" else leaf
            for leaf, one in zip(moved, counting.leaves, strict=True)
        ]
        for given in (leaves, moved):
            args, kwargs = py_pytree.tree_unflatten(given, counting.spec)
            wanted = py_pytree.tree_leaves(counting.exported.module()(*args, **kwargs))
            found = uncarried(list(flat(*carried(given))), output_counters(counting.exported))
            assert [type(one) for one in found] == [type(one) for one in wanted]
            for one, other in zip(found, wanted, strict=True):
                assert torch.allclose(torch.as_tensor(one).double(), torch.as_tensor(other).double(), atol=1e-5)


def test_a_flat_program_takes_tensors_only(counting):
    with exportable():
        flat = flat_program(counting)
    assert all(isinstance(leaf, torch.Tensor) for leaf in py_pytree.tree_leaves(flat.example_inputs))
    assert not any(output_counters(flat))
