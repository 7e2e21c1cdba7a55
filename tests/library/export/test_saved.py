"""Inputs in a file and back: any nest, any dtype, no pickle."""

import json
import math
import struct
from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvconform import build
from kvconform.export.dtypes import SAFETENSORS_NAMES
from kvconform.export.errors import SavedInputsError
from kvconform.export.saved import load_inputs, save_inputs

DTYPES = sorted(SAFETENSORS_NAMES, key=str)


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    raw = draw(st.binary(min_size=count, max_size=count))
    if dtype is torch.bool:
        raw = bytes(byte % 2 for byte in raw)
    tensor = torch.empty(shape, dtype=dtype)
    if count:
        tensor.view(-1).view(torch.uint8)[:] = torch.tensor(list(raw), dtype=torch.uint8)
    if tensor.dim() >= 2 and draw(st.booleans()):
        tensor = tensor.transpose(0, 1)
    return tensor


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats() | st.sampled_from(DTYPES)
keys = st.text(max_size=4) | st.integers(-3, 3)
trees = st.recursive(
    scalars | tensors(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=8,
)


def same(one, other):
    """Equal in classes, order, dtypes and bits; a NaN is itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        bits = [value.contiguous().view(-1).view(torch.uint8) for value in (one, other)]
        return torch.equal(*bits)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(tree=trees)
def test_what_is_saved_comes_back(tree, tmp_path):
    assert same(load_inputs(save_inputs(tree, tmp_path / "inputs.safetensors")), tree)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(tree=trees)
def test_what_is_saved_as_onnx_comes_back(tree, tmp_path):
    pytest.importorskip("onnx")
    assert same(load_inputs(save_inputs(tree, tmp_path / "inputs.onnx")), tree)


def pair(length=3):
    return torch.randn(2, 1, length, 4), torch.randn(2, 1, length, 4)


def test_caches_come_back_as_they_were(tmp_path):
    one = build.make_encoder_decoder_cache(
        build.make_dynamic_cache([pair(), pair()]), build.make_dynamic_cache([pair(5)])
    )
    tree = {"input_ids": torch.tensor([[1]]), "past_key_values": one, "scale": 0.5}
    loaded = load_inputs(save_inputs(tree, tmp_path / "inputs.safetensors"))
    assert type(loaded["past_key_values"]) is type(one)
    expected = build_leaves(one)
    assert len(expected) == 6
    for found, wanted in zip(build_leaves(loaded["past_key_values"]), expected, strict=True):
        assert torch.equal(found, wanted)


def build_leaves(cache):
    from kvconform.view import view_of

    return [leaf for inner in view_of(cache).inner for leaf in (*inner.key_cache, *inner.value_cache)]


def test_a_shared_tensor_is_written_once_and_stays_shared(tmp_path):
    tensor = torch.randn(1000)
    path = save_inputs([tensor, tensor, tensor.clone()], tmp_path / "inputs.safetensors")
    first, second, third = load_inputs(path)
    assert first is second
    assert third is not first
    assert path.stat().st_size < 2 * 4000 + 1000


def test_the_package_safetensors_reads_the_file(tmp_path):
    from safetensors import safe_open

    path = save_inputs({"a": torch.arange(6).view(2, 3), "b": torch.tensor(1.5).bfloat16()}, tmp_path / "x.safetensors")
    with safe_open(path, "pt") as file:
        assert torch.equal(file.get_tensor("t0"), torch.arange(6).view(2, 3))
        assert file.get_tensor("t1") == 1.5
        assert json.loads(file.metadata()["kvconform.tree"])["schema"] == 1


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(SavedInputsError, match=r"the tree\['a'\]\[1\] is a .*object"):
        save_inputs({"a": [1, object()]}, tmp_path / "x")
    with pytest.raises(SavedInputsError, match="only plain tensors"):
        save_inputs(torch.eye(2).to_sparse(), tmp_path / "x")
    with pytest.raises(SavedInputsError, match="keys are strings or ints"):
        save_inputs({(1, 2): 3}, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 2) + b"[]"]
)
def test_what_is_no_such_file_is_told(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(SavedInputsError, match="safetensors"):
        load_inputs(path)


def test_a_damaged_file_is_told_wherever_it_is_cut(tmp_path):
    path = save_inputs({"a": torch.randn(3), "b": [1, "x", None]}, tmp_path / "x.safetensors")
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(SavedInputsError):
            load_inputs(path)


def test_a_file_of_another_schema_or_program_is_told(tmp_path):
    path = save_inputs([1], tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes().replace(b'{\\"schema\\": 1', b'{\\"schema\\": 9'))
    with pytest.raises(SavedInputsError, match="schema 9, this kvconform reads 1"):
        load_inputs(path)
    with pytest.raises(SavedInputsError, match="no file"):
        load_inputs(tmp_path / "nothing")


def test_no_container_that_imports_what_a_file_names_is_loaded(tmp_path):
    path = save_inputs([1], tmp_path / "x.safetensors")
    evil = {"node": "collections.defaultdict", "context": {"default_factory_module": "os"}, "children": []}
    from kvconform.export import tensor_file

    tensor_file.write(path, {}, {"kvconform.tree": json.dumps({"schema": 1, "tree": evil})})
    with pytest.raises(SavedInputsError, match="no registered pytree node"):
        load_inputs(path)
