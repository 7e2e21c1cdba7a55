"""Tiny models by rules: small, the kinds of layers kept, the classes of the auto mappings, what cannot be made."""

import pytest
import torch

from kvconform.export.errors import TinyConfigError
from kvconform.export.tiny import make_tiny, make_tiny_of, tiny_config

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


@pytest.mark.parametrize("name", ["JambaConfig", "RecurrentGemmaConfig", "Gemma3TextConfig"])
def test_layers_of_a_kind_that_comes_late_are_kept(name):
    """Attention is the fifth layer of Jamba; until 5.0 a Jamba without any generates too, and would be asked less."""
    model = make_tiny(name)
    for kinds in ("layer_types", "layers_block_type"):
        default = getattr(type(model.config)(), kinds, None) or ()
        assert set(default) <= set(getattr(model.config, kinds, None) or ()), kinds
    assert sum(parameter.numel() for parameter in model.parameters()) < 200_000


def test_settings_that_are_the_same_stay_the_same():
    """Heads of keys and values are fewer where they are by default, and as many where they are not."""
    assert make_tiny("MistralConfig").config.num_key_value_heads == 2
    assert make_tiny("DeepseekV3Config").config.num_key_value_heads == 4


def test_a_model_is_made_of_its_own_config_class_where_that_of_its_parts_has_no_defaults():
    """Musicgen's has none for its encoders; the decoder, which is the causal model, has a config class of its own."""

    class Parts:
        def __init__(self, decoder):
            self.decoder = decoder

    made = make_tiny("LlamaConfig")
    alone = make_tiny_of(Parts, type(made))
    assert type(alone.config) is type(made.config)
    assert alone.config.hidden_size == made.config.hidden_size


def test_where_no_config_class_gives_a_model_the_first_reason_is_told():
    class Parts:
        def __init__(self, decoder):
            self.decoder = decoder

    class Model:
        config_class = type("Own", (), {"__init__": lambda self, needed: None})

    with pytest.raises(TinyConfigError, match="Parts cannot be made tiny"):
        make_tiny_of(Parts, Model)


def test_a_model_may_read_the_padding_that_its_config_class_leaves_out():
    """Phi and three others of 5.0: `config.pad_token_id`, which a checkpoint's config.json has."""

    class Bare:
        def __init__(self, hidden_size=512, **given):
            self.hidden_size = hidden_size
            self.__dict__ |= given

        def to_dict(self):
            return {"hidden_size": self.hidden_size}

    config = tiny_config(Bare)
    assert (config.hidden_size, config.pad_token_id) == (32, 0)


def test_what_cannot_be_made_says_why():
    with pytest.raises(TinyConfigError, match="no config class 'NoConfig'"):
        make_tiny("NoConfig")
    with pytest.raises(TinyConfigError, match=r"LlamaConfig|LlamaForCausalLM"):
        make_tiny("LlamaConfig", hidden_size="wide")
