"""Prompts from a configuration, whichever of its parts has the vocabulary."""

from types import SimpleNamespace

import pytest

from kvconform.export.prompts import make_prompt, text_config
from kvconform.export.tiny import make_tiny

PART = SimpleNamespace(vocab_size=7)


class Whole:
    """A configuration of two parts, which says that its text is `given`, or itself."""

    def __init__(self, given=None, **attributes):
        self.__dict__.update(attributes)
        self.given = given

    def get_text_config(self, decoder=False):
        return self.given or self


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Whole(PART), PART),
        (Whole(decoder=PART), PART),
        (PART, PART),
    ],
    ids=["gives its part", "gives itself", "has no parts"],
)
def test_the_vocabulary_is_found(config, expected):
    assert text_config(SimpleNamespace(config=config)) is expected


def test_a_configuration_with_a_vocabulary_and_a_decoder_is_taken_as_it_says():
    config = Whole(vocab_size=9, decoder=PART)
    assert text_config(SimpleNamespace(config=config)) is config


@pytest.mark.parametrize("padding", [0, 2])
def test_a_prompt_has_no_special_token_but_its_padding(padding):
    model = make_tiny("LlamaConfig")
    prompt = make_prompt(model, 3, 6, padding=padding)
    special = {model.config.bos_token_id, model.config.eos_token_id}
    assert prompt["attention_mask"].sum() == 18 - padding
    assert not special & set(prompt["input_ids"][prompt["attention_mask"] == 1].tolist())
