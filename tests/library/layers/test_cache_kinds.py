"""Every cache class and every layer class of this release: none without an example, none that loses anything."""

from __future__ import annotations

import functools
import inspect
from importlib.util import find_spec

import pytest
import torch

from kvconform import probes
from kvconform.checks import builders
from kvconform.checks.behave import append, states
from kvconform.checks.trees import (
    expect_json_spec,
    expect_key_paths,
    expect_round_trip,
    expect_same_behaviour,
    expect_spec_constant_over_length,
    round_trip,
)
from kvconform.layers import layer_kinds

pytestmark = pytest.mark.usefixtures("_registered")

BATCH, HEADS, WIDTH, WINDOW = 2, builders.HEADS, builders.WIDTH, builders.WINDOW
utils = probes.transformers_cache_utils()
LAZY = probes.cache_class("DynamicSlidingWindowLayer") is not None


def defined(condition):
    """Names of the concrete classes of cache_utils for which a condition holds."""
    found = [
        name
        for name, cls in vars(utils).items()
        if isinstance(cls, type) and cls.__module__ == utils.__name__ and cls.__name__ == name and condition(name, cls)
    ]
    return [name for name in found if not inspect.isabstract(getattr(utils, name))]


LAYERS = defined(lambda name, _: name.endswith("Layer") and name not in ("BaseQuantizedLayer", "QuantizedLayer"))
CACHES = defined(lambda name, _: name.endswith("Cache"))


def kwargs_of(cls):
    """Arguments that a layer's constructor takes, here or passed on."""
    names = {
        name for base in cls.__mro__ if "__init__" in vars(base) for name in inspect.signature(base.__init__).parameters
    }
    every = {"max_cache_len": 12, "sliding_window": WINDOW, "batch_size": BATCH, "num_heads": HEADS, "head_dim": WIDTH}
    return {name: value for name, value in every.items() if name in names}


def fill(cache, index, tokens):
    """Write to whatever a layer has: keys and values, linear states, an indexer."""
    layer = cache.layers[index]
    generator = torch.Generator().manual_seed(3)
    if hasattr(layer, "conv_states"):
        cache.update_conv_state(torch.randn(BATCH, 6, 4, generator=generator), index)
        cache.update_recurrent_state(torch.randn(BATCH, 2, 3, 5, generator=generator), index)
    if hasattr(layer, "keys") and type(layer).__name__ != "LinearAttentionLayer":
        append(cache, *states(BATCH, HEADS, tokens, WIDTH), index, 0)
    if hasattr(layer, "update_indexer"):
        layer.update_indexer(torch.randn(BATCH, tokens, 4, generator=generator))
    return cache


def fill_plain(layer, tokens):
    """A layer of keys and values."""
    if tokens:
        layer.update(*states(BATCH, HEADS, tokens, WIDTH))
    return layer


def with_layer(name, tokens):
    """A DynamicCache whose layers are of one class, one of them written to."""
    cls = getattr(utils, name)
    try:
        made = [cls(**kwargs_of(cls)) for _ in range(2)]
    except ImportError as error:
        pytest.skip(f"{name} needs a package: {error}")
    cache = utils.DynamicCache()
    cache.layers = made
    if not hasattr(cls, "get_mask_sizes") or name == "DummyLayer":
        # Such layers have no length, and a model has others beside them.
        cache.layers.append(fill_plain(utils.DynamicLayer(), tokens))
    if name == "DummyLayer":
        return cache
    return fill(cache, 0, tokens) if tokens else cache


@pytest.mark.skipif(not LAZY, reason="the layers of this release are made by their caches")
@pytest.mark.parametrize("tokens", [0, 3, 9])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, tokens):
    cache = with_layer(name, tokens)
    expect_round_trip(cache, name)
    expect_json_spec(cache, name)
    expect_key_paths(cache, name)
    expect_same_behaviour(cache, name)


@pytest.mark.skipif(not LAZY, reason="the layers of this release are made by their caches")
@pytest.mark.parametrize("name", [name for name in LAYERS if "Sliding" not in name])
def test_the_spec_of_a_layer_does_not_tell_the_length(name):
    expect_spec_constant_over_length(with_layer(name, 3), with_layer(name, 7), name)


# ---------------------------------------------------------------------------------------------- caches


def plain(name):
    return builders.fill(getattr(utils, name)(), BATCH, 5, [0, 1], torch.float32, "cpu")


def static(name, make=None):
    return builders.static(BATCH, 3, torch.float32, "cpu", name=name, make=make or builders.config)


def sliding(name):
    init = getattr(utils, name).__init__
    if name == "SlidingWindowCache" and "super().__init__()" in inspect.getsource(init):
        pytest.skip("4.44's own constructor of SlidingWindowCache raises")
    return static(name, functools.partial(builders.config, window=WINDOW))


def chunked(name):
    """Older releases read the size of its chunks under two names."""
    made = functools.partial(builders.config, window=WINDOW, attention_chunk_size=WINDOW, no_rope_layers=[1, 0])
    return static(name, made)


def quantized(name):
    """The one pure-torch backend (5.21 and later) needs no package; the others theirs."""
    cls = getattr(utils, name)
    backend = "quanto"
    package = {"QuantoQuantizedCache": "optimum", "HQQQuantizedCache": "hqq"}.get(name)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"{name} needs {package}")
    if probes.cache_class("Fp8QuantizedLayer") is not None:
        backend = "fp8"
    if hasattr(utils, "QuantizedCacheConfig") and not probes.has_layers():
        return builders.fill(cls(utils.QuantizedCacheConfig(nbits=4)), BATCH, 3, [0, 1], torch.float32, "cpu")
    if backend == "quanto" and find_spec("optimum") is None:
        pytest.skip(f"{name} needs optimum-quanto")
    cache = (
        cls(backend=backend, config=builders.config())
        if "backend" in probes.parameters_of(cls.__init__)
        else cls(builders.config())
    )
    return builders.fill(cache, BATCH, 3, [0, 1], torch.float32, "cpu")


def sink(name):
    cls = getattr(utils, name)
    if "window_length" not in probes.parameters_of(cls.__init__):
        pytest.skip("SinkCache is a stub that raises on this release")
    cache = cls(window_length=8, num_sink_tokens=2)
    cos, sin = torch.randn(1, 16, WIDTH), torch.randn(1, 16, WIDTH)
    for layer in range(2):
        for step in range(3):
            positions = {"cos": cos[:, :4], "sin": sin[:, :4]} if step == 0 else {"cos": cos[:, :1], "sin": sin[:, :1]}
            keys, values = states(BATCH, HEADS, 4 if step == 0 else 1, WIDTH, seed=layer)
            cache.update(keys, values, layer, positions)
    return cache


def mamba(name):
    from transformers import MambaConfig

    config = MambaConfig(hidden_size=8, num_hidden_layers=2, state_size=4, conv_kernel=3, expand=1, vocab_size=4)
    cls = getattr(utils, name)
    size = "max_batch_size" if "max_batch_size" in probes.parameters_of(cls.__init__) else "batch_size"
    cache = cls(config, **{size: BATCH}, dtype=torch.float32, device=torch.device("cpu"))
    cache.conv_states[0][0] += 1
    return cache


def pair(name):
    return getattr(utils, name)(plain("DynamicCache"), plain("DynamicCache"))


def base(name):
    if LAZY:
        return getattr(utils, name)(layers=[utils.DynamicLayer()])
    if probes.has_layers():
        pytest.skip("the base class of 4.54 and 4.55 is made by its subclasses")
    return getattr(utils, name)()


EXAMPLES = {
    "Cache": base,
    "DynamicCache": plain,
    "OffloadedCache": plain,
    "MtpCache": plain,
    "DFlashCache": plain,
    "StaticCache": static,
    "OffloadedStaticCache": static,
    "SlidingWindowCache": sliding,
    "HybridCache": sliding,
    "HybridChunkedCache": chunked,
    "OffloadedHybridCache": chunked,
    "QuantizedCache": quantized,
    "QuantoQuantizedCache": quantized,
    "HQQQuantizedCache": quantized,
    "SinkCache": sink,
    "MambaCache": mamba,
    "EncoderDecoderCache": pair,
}
# What cannot be made without a GPU, a package, or at all (an abstract base, a stub that only raises).
CANNOT = (ImportError, NotImplementedError)


def example(name):
    """A cache of this class that holds something."""
    if "Offloaded" in name and not torch.cuda.is_available():
        pytest.skip(f"{name} needs a GPU")
    try:
        return EXAMPLES[name](name)
    except CANNOT as error:
        pytest.skip(f"{name}: {error}")


def test_every_class_has_an_example():
    assert [name for name in CACHES if name not in EXAMPLES] == []
    assert [name for name in LAYERS if name not in layer_kinds._KNOWN] == []


@pytest.mark.parametrize("name", CACHES)
def test_cache(name):
    cache = example(name)
    expect_round_trip(cache, name)
    expect_json_spec(cache, name)
    expect_key_paths(cache, name)
    if name != "MambaCache":
        expect_same_behaviour(cache, name)


@pytest.mark.parametrize("name", [name for name in CACHES if EXAMPLES.get(name) in (static, sliding, chunked)])
def test_cache_that_nothing_was_written_to(name, monkeypatch):
    monkeypatch.setattr(builders, "fill", lambda cache, *_, **__: cache)
    expect_round_trip(example(name), name)
    expect_json_spec(example(name), name)


@pytest.mark.skipif("DFlashCache" not in CACHES, reason="this release has no DFlashCache")
def test_tokens_accepted_are_a_leaf_and_no_structure():
    cache, other = plain("DFlashCache"), plain("DFlashCache")
    other.set_previous_accepted_tokens(3)
    assert round_trip(other).get_query_offset() == other.get_query_offset() != cache.get_query_offset()
    expect_spec_constant_over_length(cache, other)


@pytest.mark.skipif("EncoderDecoderCache" not in CACHES, reason="this release has no EncoderDecoderCache")
@pytest.mark.parametrize(
    "self_attention", [name for name in CACHES if name not in ("EncoderDecoderCache", "MambaCache", "Cache")]
)
def test_encoder_decoder_cache_of_any_two(self_attention):
    cache = utils.EncoderDecoderCache(example(self_attention), plain("DynamicCache"))
    expect_round_trip(cache, self_attention)
    expect_json_spec(cache, self_attention)
    expect_key_paths(cache, self_attention)


@pytest.mark.parametrize("name", ["DynamicCache", "StaticCache"])
def test_a_subclass_needs_no_adapter(name):
    from kvconform import register_flattening_functions

    cls = type(f"Own{name}", (getattr(utils, name),), {"__module__": __name__})
    cache = example(name)
    cache.__class__ = cls
    cache.mine = {"a": (1, 2.5, None), "b": [torch.float16, torch.ones(2)]}
    with register_flattening_functions():
        again = expect_round_trip(cache)
    assert again.mine["b"][1] is cache.mine["b"][1]
