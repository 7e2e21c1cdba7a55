"""Executorch (opt-in): the recipe's static-cache program, lowered to a `.pte`, decodes in the ExecuTorch runtime.

The module that is exported is the one that runs on devices: one token at a time, its cache in buffers.
"""

from __future__ import annotations

import io
import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from kvconform.checks import trees
from kvconform.checks.caches import BY_NAME
from kvconform.checks.errors import ExpectationError, expect, expect_equal
from kvconform.checks.needs import has
from kvconform_conformance.examples.generation import TOKENS, Generating
from kvconform_conformance.examples.models import DECODERS, tokens
from kvconform_conformance.examples.runtimes import RUN_ELSEWHERE
from kvconform_conformance.runner.needs import needs
from kvconform_conformance.test_recipe import GENERATED, _eager_generation, exported_recipe, recipe_model

PROMPT = 4
# Holds the longest prompt and what is generated after it.
LONGEST = 96
pytestmark = needs(has("executorch.exir:to_edge_transform_and_lower"), has("executorch.runtime:Runtime"))

backends = pytest.mark.parametrize("backend", ["portable", "xnnpack"])


@backends
def test_static_cache(registered: object, backend: str, tmp_path: Path) -> None:
    """`kvconform.convert_and_export_with_cache` lowered and run by the runtime: 16 greedy tokens equal eager.

    It passes on every registration that knows DynamicCache, since the cache is inside the module.
    """
    from kvconform.recipes import convert_and_export_with_cache

    trees.expect_registered(BY_NAME["dynamic-two-layers"].build())
    program = convert_and_export_with_cache(recipe_model())
    _expect_generates(_lowered(program, backend), tmp_path, f"kvconform's recipe, {backend}")


@backends
@needs(has("transformers.integrations.executorch:convert_and_export_with_cache"))
def test_release_recipe(registered: object, backend: str, tmp_path: Path) -> None:
    """`convert_and_export_with_cache` of transformers itself, lowered and run: 16 greedy tokens equal eager."""
    trees.expect_registered(BY_NAME["dynamic-two-layers"].build())
    _expect_generates(_lowered(exported_recipe(), backend), tmp_path, f"transformers' recipe, {backend}")


def test_static_cache_is_read(registered: object, tmp_path: Path) -> None:
    """The lowered program attends to what earlier calls wrote: another first token gives other logits later.

    A program whose buffers do not keep their values would still answer, from the last token alone.
    """
    from kvconform.recipes import convert_and_export_with_cache

    trees.expect_registered(BY_NAME["dynamic-two-layers"].build())
    path = _write(_lowered(convert_and_export_with_cache(recipe_model()), "portable"), tmp_path)
    prompt = tokens(1, PROMPT)
    other = prompt.clone()
    other[0, 0] = (other[0, 0] - 2) % 29 + 3
    logits = [_run(path, ids)[-1] for ids in (prompt, other)]
    model = DECODERS[0].build()
    for ids, got in zip((prompt, other), logits, strict=True):
        expected = model(input_ids=ids, use_cache=False).logits[:, -1]
        worst = (got - expected).abs().max().item()
        expect(worst < 1e-4, f"logits after {PROMPT} tokens differ from eager by {worst:.3g}, expected below 1e-4")
    expect(not torch.equal(*logits), "the logits do not depend on the first token, expected a cache that is read")


@pytest.mark.parametrize("generating", RUN_ELSEWHERE, ids=lambda generating: generating.name)
def test_as_the_model(registered: object, generating: Generating, tmp_path: Path) -> None:
    """A `.pte` of XNNPACK generates the 64 tokens of `model.generate()`, from prompts below and past a window.

    It has the metadata that ExecuTorch's LLM runner reads: constant methods, which the runtime answers.
    """
    from kvconform.recipes import convert_and_export_with_cache

    trees.expect_registered(BY_NAME["dynamic-two-layers"].build())
    model = generating.model()
    prompts = [prompt["input_ids"][-1:] for prompt in generating.prompts(model)]
    wanted = [model.generate(ids, max_new_tokens=TOKENS, do_sample=False)[0].tolist() for ids in prompts]
    model.generation_config.cache_implementation = "static"
    model.generation_config.cache_config = {"batch_size": 1, "max_cache_len": LONGEST}
    metadata = {"get_max_seq_len": LONGEST, "get_vocab_size": model.config.vocab_size, "use_kv_cache": True}
    path = _write(_lowered(convert_and_export_with_cache(model), "xnnpack", metadata), tmp_path)
    for name, value in metadata.items():
        expect_equal(f"the metadata {name}", _method(path, name).execute([]), [value], generating.name)
    for ids, tokens_wanted in zip(prompts, wanted, strict=True):
        found = _generate(path, ids, TOKENS)
        expect_equal("the generated tokens", found, tokens_wanted, f"{generating.name}, {ids.shape[1]} of prompt")


def _expect_generates(pte: bytes, folder: Path, where: str) -> None:
    __tracebackhide__ = True
    prompt = tokens(1, PROMPT)
    got = _generate(_write(pte, folder), prompt)
    expect_equal("the generated tokens", got, _eager_generation(prompt), where)


def _lowered(program: Any, backend: str, metadata: dict[str, Any] | None = None) -> bytes:
    """The `.pte` of a program, with constant methods; whatever the lowering raises is a failed expectation."""
    __tracebackhide__ = True
    from executorch.exir import to_edge_transform_and_lower

    partitioners = []
    if backend == "xnnpack":
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        partitioners = [XnnpackPartitioner()]
    try:
        with _lowering():
            edge = to_edge_transform_and_lower(program, partitioner=partitioners, constant_methods=metadata)
            return bytes(edge.to_executorch().buffer)
    except Exception as error:
        words = " ".join(str(error).split())[:600]
        raise ExpectationError(f"lowering raised {type(error).__name__}: {words}, expected a program") from error


@contextmanager
def _lowering() -> Iterator[None]:
    """Put the interpreter's folder on PATH and discard what the lowering prints.

    ExecuTorch before 1.1 looks for its `flatc` on PATH, where it is only in an activated environment. The output of a
    worker belongs to pytest-xdist.
    """
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), path])
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        os.environ["PATH"] = path


def _write(pte: bytes, folder: Path) -> Path:
    path = folder / "model.pte"
    path.write_bytes(pte)
    return path


def _method(path: Path, name: str = "forward") -> Any:
    from executorch.runtime import Runtime

    return Runtime.get().load_program(path).load_method(name)


def _run(path: Path, ids: torch.Tensor) -> list[torch.Tensor]:
    """The last logits after each token, from a program that was loaded anew."""
    method = _method(path)
    return [_step(method, ids, position) for position in range(ids.shape[1])]


def _generate(path: Path, ids: torch.Tensor, count: int = GENERATED) -> list[int]:
    method, prompt = _method(path), ids.shape[1]
    for position in range(prompt + count - 1):
        logits = _step(method, ids, position)
        if position + 1 >= prompt:
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    expect_equal("the number of tokens", ids.shape[1], prompt + count)
    return [int(token) for token in ids[0]]


def _step(method: Any, ids: torch.Tensor, position: int) -> torch.Tensor:
    """The logits of one token, copied: the next call writes into the same memory."""
    (logits,) = method.execute([ids[:, position : position + 1].contiguous(), torch.tensor([position])])
    last: torch.Tensor = logits[:, -1].clone()
    return last
