"""Recipe: the documented ways to export with a cache, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kvconform.checks import shapes, trees
from kvconform.checks.caches import BY_NAME
from kvconform.checks.errors import ExpectationError, expect_equal
from kvconform.checks.exporting import expect_exportable, expect_program_equals_eager, export
from kvconform.checks.modules import stored
from kvconform.checks.needs import Need, has, lookup
from kvconform.checks.registry import expect_registry_unchanged, registry_snapshot
from kvconform_conformance.examples.models import DECODERS, tokens
from kvconform_conformance.examples.programs import once
from kvconform_conformance.runner.needs import needs
from kvconform_conformance.runner.subjects import Subject

GENERATED = 16


class Gallery(torch.nn.Module):
    """The module of the gallery: adds what a cache holds to `x`."""

    def forward(self, x: torch.Tensor, dc: Any) -> torch.Tensor:
        """`x` of shape `(batch, heads, any, 1)`."""
        keys = torch.cat([pair[0] for pair in stored(dc)], dim=1)
        values = torch.cat([pair[1] for pair in stored(dc)], dim=1)
        return x + (keys + values).sum(dim=2, keepdim=True)


def _gallery_cache(batch: int, length: int) -> Any:
    cache = lookup("transformers.cache_utils:DynamicCache")()
    cache.update(torch.ones((batch, 8, length, 6)), torch.ones((batch, 8, length, 6)) * 2, 0)
    return cache


def _registered_at_import() -> bool:
    from torch.utils import _pytree as pytree

    return lookup("transformers.cache_utils:DynamicCache") in pytree.SUPPORTED_NODES


@needs(Need(lambda: not _registered_at_import(), "this release registers DynamicCache when it is imported"))
def test_gallery_fails_unregistered(subject: Subject) -> None:
    """Outside the context the gallery's export is refused, before and after: nothing stays registered."""
    before = registry_snapshot()
    for when in ("before", "after"):
        try:
            export(Gallery(), (torch.ones(3, 8, 7, 1), _gallery_cache(3, 5)), where=when)
        except ExpectationError:
            pass
        else:
            raise ExpectationError(f"torch.export took an unregistered cache {when} the context, expected a refusal")
        if when == "before":
            with subject.activate():
                export(Gallery(), (torch.ones(3, 8, 7, 1), _gallery_cache(3, 5)), where="inside the context")
    expect_registry_unchanged(before, "after leaving the context", safe_globals=False)


def test_gallery_exports(registered: object) -> None:
    """Inside the context the gallery's module exports, and its program equals eager."""
    trees.expect_registered(_gallery_cache(3, 5))
    expect_exportable(Gallery(), (torch.ones(3, 8, 7, 1), _gallery_cache(3, 5)), where="the gallery")


def test_gallery_dynamic(registered: object) -> None:
    """With batch, length and `x` dynamic, the gallery's program takes the gallery's second inputs."""
    trees.expect_registered(_gallery_cache(3, 5))
    dims = shapes.named()
    asked = (
        {0: dims.batch, 2: torch.export.Dim("other", min=2, max=64)},
        shapes.dynamic_shapes(_gallery_cache, 3, 5, dims),
    )
    program = expect_exportable(Gallery(), (torch.ones(3, 8, 7, 1), _gallery_cache(3, 5)), asked, where="the gallery")
    expect_program_equals_eager(
        program, Gallery(), (torch.ones(4, 8, 9, 1), _gallery_cache(4, 11)), where="the gallery, 4 by 11"
    )


def test_flat_dynamic_shapes(registered: object) -> None:
    """Flat dynamic shapes, one entry for each tensor in the order k0, v0, k1, v1, are what `torch.export` wants."""
    cache = BY_NAME["dynamic-two-layers"].build()
    trees.expect_registered(cache)
    dims = shapes.named()
    flat = [{0: dims.batch, 2: dims.length} for _ in range(4)]
    mirrored = shapes.dynamic_shapes(BY_NAME["dynamic-two-layers"].build, 2, 5, dims)
    expect_equal("the structure of the dynamic shapes", mirrored, flat)


@needs(has("transformers.integrations.executorch:convert_and_export_with_cache"))
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_executorch_static_cache(registered: Subject, times: int) -> None:
    """The ExecuTorch recipe works in the context, twice; its decoding equals eager decoding for 16 tokens.

    Once with a model of two layers. Twice is about the process and not about the model: after that export, another,
    with one layer.
    """
    trees.expect_registered(BY_NAME["dynamic-two-layers"].build())
    prompt = tokens(1, 4)
    for time in range(times):
        program = once(("recipe", registered.name), exported_recipe) if time == 0 else exported_recipe(layers=1)
        got, expected = _exported_generation(prompt, program), _eager_generation(prompt, layers=2 - time)
        expect_equal("the generated tokens", got, expected, "ExecuTorch recipe, static cache of 32")


def _llama(layers: int) -> Any:
    return replace(DECODERS[0], settings={**DECODERS[0].settings, "num_hidden_layers": layers}).build()


def _eager_generation(prompt: torch.Tensor, layers: int = 2) -> list[int]:
    """Greedy decoding without any cache."""
    model, ids = _llama(layers), prompt
    for _ in range(GENERATED):
        logits = model(input_ids=ids, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return [int(token) for token in ids[0]]


def _exported_generation(prompt: torch.Tensor, program: Any) -> list[int]:
    """Greedy decoding a token at a time through the exported module, which keeps its static cache in buffers."""
    runnable = program.module()
    ids = prompt
    for position in range(prompt.shape[1] + GENERATED - 1):
        logits = _call(runnable, program.example_inputs, ids[:, position : position + 1], torch.tensor([position]))
        if position + 1 >= prompt.shape[1]:
            ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    expect_equal("the number of tokens", ids.shape[1], prompt.shape[1] + GENERATED)
    return [int(token) for token in ids[0]]


def recipe_model(layers: int = 2) -> Any:
    """A tiny model with the settings that the recipe reads."""
    from transformers import GenerationConfig

    model = _llama(layers)
    model.config.architectures = ["LlamaForCausalLM"]
    sizes = {"batch_size": 1, "max_cache_len": 32, "device": "cpu"}
    settings: Any = GenerationConfig
    model.generation_config = settings(use_cache=True, cache_implementation="static", max_length=32, cache_config=sizes)
    return model


def exported_recipe(layers: int = 2) -> Any:
    """The program that the documented function of this release makes."""
    model = recipe_model(layers)
    try:
        return lookup("transformers.integrations.executorch:convert_and_export_with_cache")(model)
    except Exception as error:
        raise ExpectationError(
            f"the recipe raised {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        ) from error
    finally:
        torch._dynamo.reset()


def _call(runnable: Any, example: Any, ids: torch.Tensor, position: torch.Tensor) -> Any:
    """Call as the program was exported: by position, by name, or half and half, as the release does."""
    positional = len(example[0])
    names = dict(list({"input_ids": ids, "cache_position": position}.items())[positional:])
    return runnable(*(ids, position)[:positional], **names)
