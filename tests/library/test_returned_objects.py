"""Strict exports of steps that return the cache they were given: the program, and the caller's own cache after it."""

import pytest
import torch

from kvconform import dynamic_shapes_for, exportable
from kvconform.checks.caches import examples
from kvconform.checks.modules import UpdateCache, stored
from kvconform.patches import Need, answer
from kvconform.patches.guarded_objects import _Places
from kvconform.patches.registry import find
from kvconform_conformance.examples.caches import step_inputs

NEEDED = answer(find("returned-objects")).need is Need.NEEDED
# Dynamo of torch 2.5 and 2.6 warns of its own deprecated calls.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _reset():
    yield
    torch._dynamo.reset()


def strictly(cache, **named):
    return torch.export.export(UpdateCache.like(cache), step_inputs(cache), strict=True, **named)


@pytest.mark.parametrize("example", examples("dynamic-two-layers", "static-below"), ids=lambda example: example.name)
def test_an_export_leaves_the_callers_cache_as_it_was(example):
    cache = example.build()
    before = [tensor for pair in stored(cache) for tensor in pair]
    for tensor in before:
        # As StaticCache marks its tensors. Newer tracers of torch still make constants of such ones.
        if NEEDED:
            tensor._dynamo_static_input_type = "guarded"
    marks = [getattr(tensor, "_dynamo_static_input_type", None) for tensor in before]
    length = cache.get_seq_length()
    with exportable():
        program = strictly(cache)
        assert not (NEEDED and program.constants)
    assert cache.get_seq_length() == length
    after = [tensor for pair in stored(cache) for tensor in pair]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert [getattr(tensor, "_dynamo_static_input_type", None) for tensor in after] == marks


def test_torch_compile_is_not_concerned():
    cache = examples("dynamic-two-layers")[0].build()
    step = UpdateCache.like(cache)
    x, _, position = step_inputs(cache)
    expected = step(x, examples("dynamic-two-layers")[0].build(), position)[0]
    with exportable():
        got, returned = torch.compile(step, backend="eager")(x, cache, position)
    assert returned is cache
    assert torch.equal(got, expected)


def test_a_program_refuses_what_its_guards_refuse():
    cache = examples("dynamic-two-layers")[0].build()
    batch, length = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("length", min=2, max=64)
    with exportable():
        shapes = ({0: batch}, dynamic_shapes_for(cache, batch=batch, length=length), {})
        module = strictly(cache, dynamic_shapes=shapes).module()
        x, _, position = step_inputs(cache)
        module(x, cache, position)
        with pytest.raises((RuntimeError, AssertionError), match=r"shape|Guard failed"):
            module(x[:, :, :, :4], cache, position)


class Source:
    """What Dynamo knows of where a value came from."""

    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name


def test_attributes_become_key_paths():
    module = torch.nn.Module()
    module.forward = lambda x, held: x
    places = _Places(module, (torch.zeros(1), {"a": [torch.zeros(1), 3]}), {})
    for name in ("L['x']", "L['held']['a'][0]", "L['held']['a'][1]"):
        assert places.named(Source(name)).name() == name
    unknown = Source("G['something']")
    assert places.named(unknown) is unknown
    assert places.named(Source("list(L['held'].values())[0][1]")).name() == "L['held']['a'][1]"
