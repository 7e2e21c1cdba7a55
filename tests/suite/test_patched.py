"""Every patch is planted slightly wrong, and a check of the category `patches` notices."""

import importlib
import importlib.util
from pathlib import Path

import pytest
from mutants.patched import SPOILED, spoiled

from kvconform import patch_functions, register_flattening_functions
from kvconform.checks import oracle, rivals
from kvconform.checks.errors import ExpectationError
from kvconform.patches import PATCHES, Need, answer, applied, patches_needed
from kvconform.patches.of_models import source_of
from kvconform_conformance import test_dynamic_shape as dynamic_shape
from kvconform_conformance import test_export as export
from kvconform_conformance.examples.masked import (
    MASKED,
    UNMASKED,
    expect_exports,
    expect_exports_with_variadic_keywords,
)
from kvconform_conformance.examples.repaired import expect_made_of_any_length, expect_skips_layers

# As where the suite runs: torch 2.5 warns in the program's own module, and a warning is no fault that is noticed.
pytestmark = pytest.mark.filterwarnings("ignore")

# A fault is planted in models that are imported.
for model in ("llama", "mixtral", "granitemoe", "jetmoe", "bamba", "bart", "falcon_h1", "lfm2", "mamba"):
    if importlib.util.find_spec(f"transformers.models.{model}") is not None:
        importlib.import_module(f"transformers.models.{model}.modeling_{model}")
NEEDED = [patch.name for patch in patches_needed()]
# Its faults are noticed by the check of one program for all lengths, not by those of models with a mask.
ELSEWHERE = {"sliding-windows": Path(__file__).parents[1] / "mutants" / "test_windows.py"}
# What notices the fault of a patch, where it is not the prefill of Llama.
NOTICED_BY = {
    # Since 4.52 it is the cache of Falcon-H1 alone that asks.
    "length-of-tensor": "llama-decode" if source_of("falcon_h1") is None else "falcon-h1-decode",
    "experts-by-data": "mixtral-loop-prefill",
    "experts-in-pieces": "jetmoe-prefill",
    "experts-in-groups": "mixtral-prefill",
    "branch-on-position": "bamba-decode",
    "branch-on-mask": "bamba-prefill",
    "convolution-states": "lfm2-prefill",
    "scan-of-tokens": "mamba-prefill",
    "rope-of-a-length": "llama-dynamic-decode",
    "masks-too-long": "bart, no mask",
    "processor-arguments": "strict, makes a cache",
    "returned-objects": "strict",
    "guarded-objects": "strict",
    "variadic-keywords": "by name",
    "windows-in-pieces": "pieces",
    "skipped-layers": "skipped",
    "sliding-window-constructor": "made",
}


# Whose models are asked, where a release may lack them.
LACKING = {"branch-on-position": "bamba", "branch-on-mask": "bamba", "experts-in-pieces": "jetmoe"}


def exports(name: str) -> None:
    if name in NOTICING:
        NOTICING[name]()
    else:
        expect_exports(next(asked for asked in MASKED if asked.name == name))


def returns_a_cache() -> None:
    step = next(example for example in dynamic_shape.DYNAMIC if example.name == "dynamic-two-layers")
    dynamic_shape.test_strict(None, step)


def takes_pieces() -> None:
    stream = next(one for one in rivals.STREAMS if one.name == "pieces")
    rival = next(one for one in rivals.WINDOWED if one.name == "sliding-window-cache")
    oracle.expect_same_stream(rival, stream)


NOTICING = {
    "strict": returns_a_cache,
    "strict, makes a cache": lambda: export.test_cache_out(None, strict=True),
    "pieces": takes_pieces,
    "skipped": expect_skips_layers,
    "made": expect_made_of_any_length,
    "by name": lambda: expect_exports_with_variadic_keywords(nested=False),
    "bart, no mask": lambda: expect_exports(next(asked for asked in UNMASKED if asked.name == "bart-prefill")),
}


def test_every_patch_has_a_fault():
    assert {*SPOILED, *ELSEWHERE} == {patch.name for patch in PATCHES}
    assert all(path.is_file() for path in ELSEWHERE.values())


def test_needed_here():
    assert [patch.name for patch in PATCHES if answer(patch).need is Need.NEEDED] == NEEDED
    with patch_functions(), register_flattening_functions():
        exports("llama-prefill")
        exports("llama-decode")


@pytest.mark.parametrize("name", [name for name in NEEDED if name in SPOILED])
def test_the_fault_is_noticed(name):
    if name in LACKING and source_of(LACKING[name]) is None:
        pytest.skip(f"this release has no {LACKING[name]}")
    wrong = spoiled(name)
    with patch_functions(*NEEDED, without=[name]), register_flattening_functions():
        applied.enter(wrong)
        try:
            with pytest.raises(ExpectationError):
                exports(NOTICED_BY.get(name, "llama-prefill"))
        finally:
            applied.leave(wrong)
