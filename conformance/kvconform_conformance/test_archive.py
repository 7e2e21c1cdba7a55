"""Archive: a saved program loads without unsafe unpickling, here and in a fresh process, and computes the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch.utils._pytree as pytree

from kvconform.checks import archive, making, spaces
from kvconform.checks.caches import Example
from kvconform.checks.errors import expect_equal
from kvconform.checks.exporting import TOLERANCE, expect_program_equals_eager
from kvconform.checks.observe import same
from kvconform.checks.trees import expect_registered
from kvconform_conformance.examples.caches import DYNAMIC, EXPORTED, by_name, step_inputs
from kvconform_conformance.examples.programs import decode_step
from kvconform_conformance.runner import python
from kvconform_conformance.runner.subjects import Subject


@pytest.mark.parametrize("example", EXPORTED, ids=lambda example: example.name)
def test_same_process(registered: Subject, example: Example, tmp_path: Path) -> None:
    """A decode step saved and loaded in one process equals eager, and loading falls back to no unsafe unpickling."""
    program = decode_step(registered, example, dynamic=False)
    path = tmp_path / "program.pt2"
    archive.save(program.exported, path, example.where)
    loaded = archive.expect_loads(path, example.where)
    expect_program_equals_eager(loaded, program.module, step_inputs(example.build()), where=f"{example.where}, loaded")


@pytest.mark.parametrize("example", DYNAMIC, ids=lambda example: example.name)
def test_dynamic(registered: Subject, example: Example, tmp_path: Path) -> None:
    """A loaded program still takes an unseen batch and length."""
    program = decode_step(registered, example, dynamic=True)
    path = tmp_path / "program.pt2"
    archive.save(program.exported, path, example.where)
    loaded = archive.expect_loads(path, example.where)
    args = step_inputs(example.build(3, example.length + 2), 3)
    expect_program_equals_eager(loaded, program.module, args, where=f"{example.where}, loaded; batch 3")


@pytest.mark.parametrize("name", ["dynamic-two-layers"])
def test_fresh_process(registered: Subject, name: str, tmp_path: Path) -> None:
    """A saved program loads and runs in a process that only entered the subject, at an unseen batch and length."""
    example = by_name(name)
    program = decode_step(registered, example, dynamic=True)
    path = tmp_path / "program.pt2"
    archive.save(program.exported, path, example.where)
    batch, length = 3, example.length + 2
    result = tmp_path / "result.pt"
    fresh = [
        *python.options(),
        "-m",
        "kvconform_conformance.runner.fresh",
        registered.name,
        name,
        str(batch),
        str(length),
    ]
    got = archive.run_in_fresh_process([*fresh, str(path), str(result)], result, example.where)
    expected = pytree.tree_leaves(program.module(*step_inputs(example.build(batch, length), batch)))
    expect_equal("the number of leaves", len(got), len(expected), example.where)
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        expect_equal(f"leaf {index} equals eager", same(one, other, TOLERANCE), True, example.where)


def test_specs_in_a_fresh_process(registered: Subject, tmp_path: Path) -> None:
    """The JSON of specs is good in a process that only entered the subject."""
    drawn = [
        case for name in ("anything", "attributes", "windows", "examples") for case in spaces.BY_NAME[name].some(25)
    ]
    drawn += [case for name in ("many-layers", "more-than-hundred-layers") for case in spaces.BY_NAME[name].some(5)]
    held = [case for case in drawn if making.possible(case)]
    told = []
    for case in held:
        cache = making.build(case)
        expect_registered(cache, str(case))
        told.append((asdict(case), pytree.treespec_dumps(pytree.tree_flatten(cache)[1])))
    path, result = tmp_path / "specs.json", tmp_path / "result.pt"
    path.write_text(json.dumps(told), "utf-8")
    fresh = [*python.options(), "-m", "kvconform_conformance.runner.fresh_specs", registered.name]
    wrong = archive.run_in_fresh_process([*fresh, str(path), str(result)], result, "the specs of many caches")
    expect_equal("what is wrong with the specs of another process", wrong[:3], [], f"{len(told)} caches")
