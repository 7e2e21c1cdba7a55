"""The architectures of the installed release: each class once, with a configuration of its own where it has one."""

from kvconform.export.architectures import architectures, entries

CAUSAL = ("MODEL_FOR_CAUSAL_LM_MAPPING",)


def test_each_class_stands_once():
    names = [one.name for one in architectures()]
    assert len(names) == len(set(names)) > 100
    assert set(names) == {one.name for one in entries()}


def test_a_class_of_several_configurations_has_its_own():
    found = {one.name: one for one in architectures()}
    assert found["LlamaForCausalLM"].config_name == "LlamaConfig"
    assert found["LlamaForCausalLM"].config_class().__name__ == "LlamaConfig"
    assert found["LlamaForCausalLM"].model_class().__name__ == "LlamaForCausalLM"


def test_a_configuration_may_have_two():
    assert {"BartForCausalLM", "BartForConditionalGeneration"} <= {
        one.name for one in architectures() if one.config_name == "BartConfig"
    }


def test_a_mapping_that_the_release_lacks_has_none():
    assert list(architectures(("MODEL_FOR_NOTHING_MAPPING",))) == []
    assert all(one.mapping == CAUSAL[0] for one in architectures(CAUSAL))
