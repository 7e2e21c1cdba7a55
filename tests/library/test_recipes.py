"""The export recipes, on one tiny decoder each."""

import pytest
import torch

import kvconform
from kvconform import recipes

transformers = pytest.importorskip("transformers")
SIZES = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


def decoder(kind="Llama", **more):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES, **more)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "more"), [("Llama", {}), ("Mistral", {"sliding_window": 5})])
def test_a_static_program_answers_like_the_model_past_every_window(kind, more):
    model = decoder(kind, **more)
    program = kvconform.convert_and_export_with_cache(
        model, example_input_ids=torch.tensor([[1]]), example_cache_position=torch.tensor([0])
    ).module()
    ids = torch.randint(3, 32, (1, 12))
    with torch.no_grad():
        expected = decoder(kind, **more)(input_ids=ids, use_cache=False).logits
        for position in range(ids.shape[1]):
            found = program(input_ids=ids[:, position : position + 1], cache_position=torch.tensor([position]))
            assert torch.allclose(found[0, -1], expected[0, position], atol=1e-5), position


def test_the_module_alone_answers_like_the_model():
    module = recipes.StaticCacheModule(decoder(), max_cache_len=16)
    ids = torch.randint(3, 32, (1, 6))
    with torch.no_grad():
        found = module(ids, torch.arange(6))
        assert torch.allclose(found, decoder()(input_ids=ids, use_cache=False).logits, atol=1e-5)
    assert {name for name, _ in module.named_buffers() if name.startswith("key_cache")} == {
        "key_cache_0",
        "key_cache_1",
    }


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_exported_is_told_with_every_reason():
    class Refuses(torch.nn.Module):
        def forward(self, input_ids, past_key_values):
            raise NotImplementedError("refused on purpose")

    with pytest.raises(kvconform.CacheStructureError, match="refused on purpose"):
        recipes._export(Refuses(), {"input_ids": torch.ones(1), "past_key_values": torch.ones(1)}, None, None, [])
