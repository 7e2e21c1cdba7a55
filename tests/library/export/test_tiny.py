"""Tiny models by rules: small, the kinds of layers kept, the classes of the auto mappings, what cannot be made."""

import pytest
import torch

from kvconform.export.errors import TinyConfigError
from kvconform.export.tiny import make_tiny, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ["LlamaConfig", "MistralConfig", "Gemma3TextConfig", "Qwen2Config", "GPT2Config", "T5Config", "WhisperConfig"]


@pytest.mark.parametrize("name", NAMES)
def test_the_models_are_tiny_and_the_same_every_time(name):
    model, again = make_tiny(name), make_tiny(name)
    assert sum(parameter.numel() for parameter in model.parameters()) < 200_000
    for (key, value), (_, other) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(value, other), key
    assert not model.training


def test_one_layer_of_each_kind_is_kept():
    config = tiny_config(type(make_tiny("Gemma3TextConfig").config))
    assert sorted(config.layer_types) == ["full_attention", "sliding_attention"]
    assert config.num_hidden_layers == 2
    assert config.sliding_window == 8


def test_settings_win_over_rules():
    assert make_tiny("MistralConfig", sliding_window=5, num_hidden_layers=3).config.sliding_window == 5


def test_a_class_that_empties_what_it_is_given_is_made_again():
    """EncoderDecoderConfig takes its parts out of dicts: the overrides stay whole."""
    assert make_tiny("EncoderDecoderConfig").config.decoder.vocab_size == 64
    assert make_tiny("EncoderDecoderConfig").config.decoder.vocab_size == 64


def test_layers_of_a_kind_that_comes_late_are_kept():
    """Attention is the fifth layer of Jamba: the first way that keeps it counts."""
    model = make_tiny("JambaConfig")
    assert model.config.num_hidden_layers > 2
    assert sum(parameter.numel() for parameter in model.parameters()) < 200_000


def test_settings_that_are_the_same_stay_the_same():
    """Heads of keys and values are fewer where they are by default, and as many where they are not."""
    assert make_tiny("MistralConfig").config.num_key_value_heads == 2
    assert make_tiny("DeepseekV3Config").config.num_key_value_heads == 4


def test_what_cannot_be_made_says_why():
    with pytest.raises(TinyConfigError, match="no config class 'NoConfig'"):
        make_tiny("NoConfig")
    with pytest.raises(TinyConfigError, match=r"LlamaConfig|LlamaForCausalLM"):
        make_tiny("LlamaConfig", hidden_size="wide")
